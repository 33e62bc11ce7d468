// Q1_0: 128 weights in 18 bytes, 1.125 bits a weight.
//     weight = d where the bit is set, else -d
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

struct Q1_0 : QuantizedFormat {
  static constexpr const char *name = "Q1_0";
  static constexpr int id = 41;
  static constexpr int block_size = 128;
  static constexpr int scale_size = 128;
  struct Block {
    Half d;
    uint8_t qs[16];  // bit i of byte j: weight 8 j + i
  };
  static_assert(sizeof(Block) == 18);

  static ROCFORGE_HD Scale scale(const Block &block, int) { return {to_float(block.d)}; }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    return subtract(unpack1(block.qs[group]) << 1, 1);
  }
};

}  // namespace rocforge::formats
