// Q4_0: 32 weights in 18 bytes, 4.5 bits a weight.
//     weight = d * (q - 8)
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

struct Q4_0 : QuantizedFormat {
  static constexpr const char *name = "Q4_0";
  static constexpr int id = 2;
  static constexpr int block_size = 32;
  static constexpr int scale_size = 32;
  struct Block {
    Half d;
    uint8_t qs[16];  // low nibble of byte j: weight j; high nibble: weight j + 16
  };
  static_assert(sizeof(Block) == 18);

  static ROCFORGE_HD Scale scale(const Block &block, int) { return {to_float(block.d)}; }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    return subtract(nibbles(load8<2>(block.qs + 8 * (group & 1)), group >> 1), 8);
  }
};

}  // namespace rocforge::formats
