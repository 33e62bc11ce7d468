// IQ3_S: 256 weights in 110 bytes, 3.4375 bits a weight.
//     weight = d * (1 + 2 * scale) * (+-magnitude)       scale of 4 bits for each 32 weights
#pragma once

#include "formats/iq.h"
#include "formats/tables/iq3_s.h"

namespace rocforge::formats {

struct IQ3_S : QuantizedFormat {
  static constexpr const char *name = "IQ3_S";
  static constexpr int id = 21;
  static constexpr int block_size = 256;
  static constexpr int scale_size = 32;
  struct Block {
    Half d;
    uint8_t qs[64];     // low eight bits of the codebook entry of 4 weights
    uint8_t qh[8];      // bit k of byte j: the ninth bit of entry 8 j + k
    uint8_t signs[32];  // bit i of byte j: weight 8 j + i is negative
    uint8_t scales[4];  // low nibble: first 32 of 64 weights
  };
  static_assert(sizeof(Block) == 110);

  static ROCFORGE_HD Scale scale(const Block &block, int group) {
    const uint32_t scale = block.scales[group >> 3] >> 4 * (group >> 2 & 1) & 0x0f;
    return {to_float(block.d) * static_cast<float>(1 + 2 * scale)};
  }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    const uint8_t *const qs = block.qs + 2 * group;
    const uint32_t high = block.qh[group >> 2] >> 2 * (group & 3);
    const uint32_t first = qs[0] | (high & 1) << 8, second = qs[1] | (high >> 1 & 1) << 8;
    return apply_signs(join(lookup(kIQ3SGrid, first), lookup(kIQ3SGrid, second)), block.signs[group]);
  }
};

}  // namespace rocforge::formats
