// MXFP6_E2M3: 32 weights in 25 bytes, 6.25 bits a weight (OCP MX v1.0). No GGUF type.
//     weight = 2^(e - 127) * level / 8       level = m, 8 + m, 2 (8 + m), 4 (8 + m) for exponent 0 .. 3, mantissa m
// Minus zero decodes to zero.
#pragma once

#include "formats/mxfp6.h"

namespace rocforge::formats {

struct MXFP6_E2M3 : QuantizedFormat {
  static constexpr const char *name = "MXFP6_E2M3";
  static constexpr int id = -1;
  static constexpr int block_size = 32;
  static constexpr int scale_size = 32;
  static constexpr float level_unit = 0.125f;
  static constexpr bool has_values = true;
  using Block = MXFP6Block;
  static_assert(sizeof(Block) == 25);

  static ROCFORGE_HD Scale scale(const Block &block, int) { return {float_from_e8m0(block.e)}; }
  static ROCFORGE_HD void values8(const Block &block, int group, float out[8]) {
    mxfp6_values<3>(mxfp6_bits(block, group), out);
  }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    const Int8x8 codes = mxfp6_codes(block, group);
    const Int8x8 top = (codes >> 4) & each(0x01), bottom = (codes >> 3) & each(0x01);
    // Exponent and mantissa as one number are the level for exponents 0 and 1; 2 adds m to it, 3 adds m + 2 (4 + m).
    const Int8x8 number = codes & each(0x1f), m = codes & each(0x07);
    const Int8x8 more = ((m + each(4)) << 1) & mask_from_bits(top & bottom);
    return negate_where((codes >> 5) & each(0x01), number + (m & mask_from_bits(top)) + more);
  }
};

}  // namespace rocforge::formats
