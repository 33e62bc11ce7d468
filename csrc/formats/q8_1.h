// Q8_1: 32 weights in 36 bytes, 9 bits a weight. Made for activations: s serves dot products and decodes to nothing.
//     weight = d * q
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

struct Q8_1 : QuantizedFormat {
  static constexpr const char *name = "Q8_1";
  static constexpr int id = 9;
  static constexpr int block_size = 32;
  static constexpr int scale_size = 32;
  struct Block {
    Half d, s;       // s = d * sum of qs
    uint8_t qs[32];  // int8
  };
  static_assert(sizeof(Block) == 36);

  static ROCFORGE_HD Scale scale(const Block &block, int) { return {to_float(block.d)}; }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) { return load8<4>(block.qs + 8 * group); }
};

}  // namespace rocforge::formats
