// TQ2_0: 256 weights in 66 bytes, 2.0625 bits a weight.
//     weight = d * (q - 1)
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

struct TQ2_0 : QuantizedFormat {
  static constexpr const char *name = "TQ2_0";
  static constexpr int id = 35;
  static constexpr int block_size = 256;
  static constexpr int scale_size = 256;
  struct Block {
    uint8_t qs[64];  // bits 2 j .. 2 j + 1 of byte 32 n + l: weight 128 n + 32 j + l
    Half d;
  };
  static_assert(sizeof(Block) == 66);

  static ROCFORGE_HD Scale scale(const Block &block, int) { return {to_float(block.d)}; }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    return subtract(crumbs(load8<2>(block.qs + 32 * (group >> 4) + 8 * (group & 3)), group >> 2 & 3), 1);
  }
};

}  // namespace rocforge::formats
