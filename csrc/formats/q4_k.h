// Q4_K: 256 weights in 144 bytes, 4.5 bits a weight.
//     weight = d * scale * q - dmin * min       scale and min of 6 bits for each 32 weights
#pragma once

#include "formats/k_scales.h"

namespace rocforge::formats {

struct Q4_K : QuantizedFormat {
  static constexpr const char *name = "Q4_K";
  static constexpr int id = 12;
  static constexpr int block_size = 256;
  static constexpr int scale_size = 32;
  static constexpr bool has_offset = true;
  struct Block {
    Half d, dmin;
    uint8_t scales[12];  // see k_scales.h
    uint8_t qs[128];     // low nibble of byte 32 n + l: weight 64 n + l; high nibble: weight 64 n + 32 + l
  };
  static_assert(sizeof(Block) == 144);

  static ROCFORGE_HD Scale scale(const Block &block, int group) {
    return k_scale(block.d, block.dmin, block.scales, group >> 2);
  }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    return nibbles(load8<8>(block.qs + 32 * (group >> 3) + 8 * (group & 3)), group >> 2 & 1);
  }
};

}  // namespace rocforge::formats
