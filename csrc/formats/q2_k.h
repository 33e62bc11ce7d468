// Q2_K: 256 weights in 84 bytes, 2.625 bits a weight.
//     weight = d * scale * q - dmin * min       scale and min of 4 bits for each 16 weights
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

struct Q2_K : QuantizedFormat {
  static constexpr const char *name = "Q2_K";
  static constexpr int id = 10;
  static constexpr int block_size = 256;
  static constexpr int scale_size = 16;
  static constexpr bool has_offset = true;
  struct Block {
    uint8_t scales[16];  // low nibble: scale, high nibble: min
    uint8_t qs[64];      // bits 2 j .. 2 j + 1 of byte 32 n + l: weight 128 n + 32 j + l
    Half d, dmin;
  };
  static_assert(sizeof(Block) == 84);

  static ROCFORGE_HD Scale scale(const Block &block, int group) {
    const uint32_t packed = block.scales[group >> 1];
    return {to_float(block.d) * static_cast<float>(packed & 0x0f),
            -(to_float(block.dmin) * static_cast<float>(packed >> 4))};
  }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    return crumbs(load8<4>(block.qs + 32 * (group >> 4) + 8 * (group & 3)), group >> 2 & 3);
  }
};

}  // namespace rocforge::formats
