// Q4_1: 32 weights in 20 bytes, 5 bits a weight.
//     weight = d * q + m
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

struct Q4_1 : QuantizedFormat {
  static constexpr const char *name = "Q4_1";
  static constexpr int id = 3;
  static constexpr int block_size = 32;
  static constexpr int scale_size = 32;
  static constexpr bool has_offset = true;
  struct Block {
    Half d, m;
    uint8_t qs[16];  // low nibble of byte j: weight j; high nibble: weight j + 16
  };
  static_assert(sizeof(Block) == 20);

  static ROCFORGE_HD Scale scale(const Block &block, int) { return {to_float(block.d), to_float(block.m)}; }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    return nibbles(load8<4>(block.qs + 8 * (group & 1)), group >> 1);
  }
};

}  // namespace rocforge::formats
