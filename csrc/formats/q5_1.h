// Q5_1: 32 weights in 24 bytes, 6 bits a weight.
//     weight = d * q + m
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

struct Q5_1 : QuantizedFormat {
  static constexpr const char *name = "Q5_1";
  static constexpr int id = 7;
  static constexpr int block_size = 32;
  static constexpr int scale_size = 32;
  static constexpr bool has_offset = true;
  struct Block {
    Half d, m;
    uint8_t qh[4];   // bit j: the fifth bit of weight j
    uint8_t qs[16];  // low nibble of byte j: weight j; high nibble: weight j + 16
  };
  static_assert(sizeof(Block) == 24);

  static ROCFORGE_HD Scale scale(const Block &block, int) { return {to_float(block.d), to_float(block.m)}; }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    const Int8x8 low = nibbles(load8<8>(block.qs + 8 * (group & 1)), group >> 1);
    return low | unpack1(block.qh[group]) << 4;
  }
};

}  // namespace rocforge::formats
