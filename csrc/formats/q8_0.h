// Q8_0: 32 weights in 34 bytes, 8.5 bits a weight.
//     weight = d * q
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

struct Q8_0 : QuantizedFormat {
  static constexpr const char *name = "Q8_0";
  static constexpr int id = 8;
  static constexpr int block_size = 32;
  static constexpr int scale_size = 32;
  struct Block {
    Half d;
    uint8_t qs[32];  // int8
  };
  static_assert(sizeof(Block) == 34);

  static ROCFORGE_HD Scale scale(const Block &block, int) { return {to_float(block.d)}; }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) { return load8<2>(block.qs + 8 * group); }
};

}  // namespace rocforge::formats
