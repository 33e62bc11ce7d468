// IQ2_S: 256 weights in 82 bytes, 2.5625 bits a weight.
//     weight = d * (0.5 + scale) * 0.25 * (+-magnitude)       scale of 4 bits for each 16 weights
#pragma once

#include "formats/iq.h"
#include "formats/tables/iq2_s.h"

namespace rocforge::formats {

struct IQ2_S : QuantizedFormat {
  static constexpr const char *name = "IQ2_S";
  static constexpr int id = 22;
  static constexpr int block_size = 256;
  static constexpr int scale_size = 16;
  struct Block {
    Half d;
    uint8_t qs[32];     // low eight bits of the codebook entry of 8 weights
    uint8_t signs[32];  // bit i of byte j: weight 8 j + i is negative
    uint8_t qh[8];      // bits 2 k .. 2 k + 1 of byte j: high two bits of entry 4 j + k
    uint8_t scales[8];  // low nibble: first 16 of 32 weights
  };
  static_assert(sizeof(Block) == 82);

  static ROCFORGE_HD Scale scale(const Block &block, int group) {
    const uint32_t scale = block.scales[group >> 2] >> 4 * (group >> 1 & 1) & 0x0f;
    return {to_float(block.d) * (0.5f + static_cast<float>(scale)) * 0.25f};
  }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    const uint32_t high = block.qh[group >> 2] >> 2 * (group & 3) & 0x03;
    return apply_signs(bytes_of(lookup(kIQ2SGrid, block.qs[group] | high << 8)), block.signs[group]);
  }
};

}  // namespace rocforge::formats
