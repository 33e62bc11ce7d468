// IQ2_XS: 256 weights in 74 bytes, 2.3125 bits a weight.
//     weight = d * (0.5 + scale) * 0.25 * (+-magnitude)       scale of 4 bits for each 16 weights
#pragma once

#include "formats/iq.h"
#include "formats/tables/iq2_xs.h"

namespace rocforge::formats {

struct IQ2_XS : QuantizedFormat {
  static constexpr const char *name = "IQ2_XS";
  static constexpr int id = 17;
  static constexpr int block_size = 256;
  static constexpr int scale_size = 16;
  struct Block {
    Half d;
    uint8_t qs[64];  // uint16 for each 8 weights: codebook entry in 9 bits, 7 signs above (the eighth is their parity)
    uint8_t scales[8];  // low nibble: first 16 of 32 weights
  };
  static_assert(sizeof(Block) == 74);

  static ROCFORGE_HD Scale scale(const Block &block, int group) {
    const uint32_t scale = block.scales[group >> 2] >> 4 * (group >> 1 & 1) & 0x0f;
    return {to_float(block.d) * (0.5f + static_cast<float>(scale)) * 0.25f};
  }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    const uint32_t q = load<uint16_t, 2>(block.qs + 2 * group);
    return apply_signs(bytes_of(lookup(kIQ2XSGrid, q & 0x1ff)), even_signs(q >> 9));
  }
};

}  // namespace rocforge::formats
