// IQ3_XXS: 256 weights in 98 bytes, 3.0625 bits a weight.
//     weight = d * (0.5 + scale) * 0.5 * (+-magnitude)       scale of 4 bits for each 32 weights
#pragma once

#include "formats/iq.h"
#include "formats/tables/iq3_xxs.h"

namespace rocforge::formats {

struct IQ3_XXS : QuantizedFormat {
  static constexpr const char *name = "IQ3_XXS";
  static constexpr int id = 18;
  static constexpr int block_size = 256;
  static constexpr int scale_size = 32;
  struct Block {
    Half d;
    uint8_t qs[64];     // codebook entries of 4 weights each
    uint8_t signs[32];  // uint32 for each 32 weights: four times 7 signs (the eighth is their parity), scale on top
  };
  static_assert(sizeof(Block) == 98);

  static ROCFORGE_HD Scale scale(const Block &block, int group) {
    const uint32_t scale = block.signs[4 * (group >> 2) + 3] >> 4;
    return {to_float(block.d) * (0.5f + static_cast<float>(scale)) * 0.5f};
  }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    const uint32_t signs = load<uint32_t, 2>(block.signs + 4 * (group >> 2)) >> 7 * (group & 3) & 0x7f;
    const uint8_t *const qs = block.qs + 2 * group;
    return apply_signs(join(lookup(kIQ3XXSGrid, qs[0]), lookup(kIQ3XXSGrid, qs[1])), even_signs(signs));
  }
};

}  // namespace rocforge::formats
