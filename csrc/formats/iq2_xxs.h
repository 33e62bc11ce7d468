// IQ2_XXS: 256 weights in 66 bytes, 2.0625 bits a weight.
//     weight = d * (0.5 + scale) * 0.25 * (+-magnitude)       scale of 4 bits for each 32 weights
#pragma once

#include "formats/iq.h"
#include "formats/tables/iq2_xxs.h"

namespace rocforge::formats {

struct IQ2_XXS : QuantizedFormat {
  static constexpr const char *name = "IQ2_XXS";
  static constexpr int id = 16;
  static constexpr int block_size = 256;
  static constexpr int scale_size = 32;
  struct Block {
    Half d;
    uint8_t qs[64];  // for each 32 weights: bytes 0 .. 3: codebook entries of 8 weights each;
                     // bytes 4 .. 7: four times 7 signs (the eighth is their parity), scale on top
  };
  static_assert(sizeof(Block) == 66);

  static ROCFORGE_HD Scale scale(const Block &block, int group) {
    const uint32_t scale = block.qs[8 * (group >> 2) + 7] >> 4;
    return {to_float(block.d) * (0.5f + static_cast<float>(scale)) * 0.25f};
  }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    const uint8_t *const qs = block.qs + 8 * (group >> 2);
    const uint32_t signs = load<uint32_t, 2>(qs + 4) >> 7 * (group & 3) & 0x7f;
    return apply_signs(bytes_of(lookup(kIQ2XXSGrid, qs[group & 3])), even_signs(signs));
  }
};

}  // namespace rocforge::formats
