// Q2_0: 64 weights in 18 bytes, 2.25 bits a weight.
//     weight = d * (q - 1)
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

struct Q2_0 : QuantizedFormat {
  static constexpr const char *name = "Q2_0";
  static constexpr int id = 42;
  static constexpr int block_size = 64;
  static constexpr int scale_size = 64;
  struct Block {
    Half d;
    uint8_t qs[16];  // bits 2 i .. 2 i + 1 of byte j: weight 4 j + i
  };
  static_assert(sizeof(Block) == 18);

  static ROCFORGE_HD Scale scale(const Block &block, int) { return {to_float(block.d)}; }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    const uint8_t *const qs = block.qs + 2 * group;
    return subtract(join(unpack2(qs[0]), unpack2(qs[1])), 1);
  }
};

}  // namespace rocforge::formats
