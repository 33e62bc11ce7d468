// IQ1_S: 256 weights in 50 bytes, 1.5625 bits a weight.
//     weight = d * (2 * scale + 1) * (digit +- 0.125)       scale of 3 bits and sign of the eighth for each 32 weights
#pragma once

#include "formats/iq1.h"

namespace rocforge::formats {

struct IQ1_S : QuantizedFormat {
  static constexpr const char *name = "IQ1_S";
  static constexpr int id = 19;
  static constexpr int block_size = 256;
  static constexpr int scale_size = 32;
  static constexpr float level_unit = 0.125f;
  struct Block {
    Half d;
    uint8_t qs[32];  // low eight bits of the codebook entry of 8 weights
    uint8_t qh[16];  // uint16 for each 32 weights: high three bits of four entries, scale, sign of the eighth on top
  };
  static_assert(sizeof(Block) == 50);

  static ROCFORGE_HD Scale scale(const Block &block, int group) {
    const uint32_t scale = load<uint16_t, 2>(block.qh + 2 * (group >> 2)) >> 12 & 0x07;
    return {to_float(block.d) * static_cast<float>(2 * scale + 1)};
  }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    const uint32_t qh = load<uint16_t, 2>(block.qh + 2 * (group >> 2));
    return iq1_levels(block.qs[group] | (qh >> 3 * (group & 3) & 0x07) << 8, qh & 0x8000);
  }
};

}  // namespace rocforge::formats
