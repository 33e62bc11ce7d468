// IQ1_M: 256 weights in 56 bytes, 1.75 bits a weight.
//     weight = d * (2 * scale + 1) * (digit +- 0.125)       scale of 3 bits for each 16 weights, sign for each 8
#pragma once

#include "formats/iq1.h"

namespace rocforge::formats {

struct IQ1_M : QuantizedFormat {
  static constexpr const char *name = "IQ1_M";
  static constexpr int id = 29;
  static constexpr int block_size = 256;
  static constexpr int scale_size = 16;
  static constexpr float level_unit = 0.125f;
  struct Block {
    uint8_t qs[32];     // low eight bits of the codebook entry of 8 weights
    uint8_t qh[16];     // a nibble for each 8 weights: high three bits of the entry, sign of the eighth on top
    uint8_t scales[8];  // four uint16: four scales of 3 bits each; their top nibbles, the first lowest, are d (f16)
  };
  static_assert(sizeof(Block) == 56);

  static ROCFORGE_HD Scale scale(const Block &block, int group) {
    const uint32_t first = load<uint32_t, 8>(block.scales), second = load<uint32_t, 4>(block.scales + 4);
    const uint32_t d =
        (first >> 12 & 0x000f) | (first >> 24 & 0x00f0) | (second >> 4 & 0x0f00) | (second >> 16 & 0xf000);
    const uint32_t scale = load<uint16_t, 2>(block.scales + 2 * (group >> 3)) >> 3 * (group >> 1 & 3) & 0x07;
    return {float_from_half(d) * static_cast<float>(2 * scale + 1)};
  }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    const uint32_t qh = block.qh[group >> 1] >> 4 * (group & 1);
    return iq1_levels(block.qs[group] | (qh & 0x07) << 8, qh & 0x08);
  }
};

}  // namespace rocforge::formats
