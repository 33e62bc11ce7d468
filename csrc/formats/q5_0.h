// Q5_0: 32 weights in 22 bytes, 5.5 bits a weight.
//     weight = d * (q - 16)
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

struct Q5_0 : QuantizedFormat {
  static constexpr const char *name = "Q5_0";
  static constexpr int id = 6;
  static constexpr int block_size = 32;
  static constexpr int scale_size = 32;
  struct Block {
    Half d;
    uint8_t qh[4];   // bit j: the fifth bit of weight j
    uint8_t qs[16];  // low nibble of byte j: weight j; high nibble: weight j + 16
  };
  static_assert(sizeof(Block) == 22);

  static ROCFORGE_HD Scale scale(const Block &block, int) { return {to_float(block.d)}; }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    const Int8x8 low = nibbles(load8<2>(block.qs + 8 * (group & 1)), group >> 1);
    return subtract(low | unpack1(block.qh[group]) << 4, 16);
  }
};

}  // namespace rocforge::formats
