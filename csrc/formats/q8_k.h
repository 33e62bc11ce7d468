// Q8_K: 256 weights in 292 bytes, 9.125 bits a weight. Made for activations: bsums serve dot products and decode to
// nothing. Its scale is a float32, unlike every other format's.
//     weight = d * q
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

struct Q8_K : QuantizedFormat {
  static constexpr const char *name = "Q8_K";
  static constexpr int id = 15;
  static constexpr int block_size = 256;
  static constexpr int scale_size = 256;
  struct Block {
    Float d;
    uint8_t qs[256];    // int8
    uint8_t bsums[32];  // int16: sums of 16 qs
  };
  static_assert(sizeof(Block) == 292);

  static ROCFORGE_HD Scale scale(const Block &block, int) { return {to_float(block.d)}; }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) { return load8<4>(block.qs + 8 * group); }
};

}  // namespace rocforge::formats
