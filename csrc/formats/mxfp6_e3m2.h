// MXFP6_E3M2: 32 weights in 25 bytes, 6.25 bits a weight (OCP MX v1.0). No GGUF type.
//     weight = 2^(e - 127) * level / 16       level = m for exponent 0, (4 + m) 2^(exponent - 1) above, mantissa m
// Minus zero decodes to zero.
#pragma once

#include "formats/mxfp6.h"

namespace rocforge::formats {

struct MXFP6_E3M2 : QuantizedFormat {
  static constexpr const char *name = "MXFP6_E3M2";
  static constexpr int id = -1;
  static constexpr int block_size = 32;
  static constexpr int scale_size = 32;
  static constexpr float level_unit = 0.0625f;
  static constexpr bool has_values = true;
  using Block = MXFP6Block;
  static_assert(sizeof(Block) == 25);

  static ROCFORGE_HD Scale scale(const Block &block, int) { return {float_from_e8m0(block.e)}; }
  static ROCFORGE_HD void values8(const Block &block, int group, float out[8]) {
    mxfp6_values<2>(mxfp6_bits(block, group), out);
  }
  static ROCFORGE_HD Int16x8 levels8(const Block &block, int group) {
    const Int8x8 codes = mxfp6_codes(block, group);
    const Int8x8 low4 = codes & each(0x0f), large = mask_from_bits((codes >> 4) & each(0x01));
    const Int8x8 low_bytes = lookup16<Small>(low4) ^ ((lookup16<Small>(low4) ^ lookup16<Large>(low4)) & large);
    // Exponent 7 alone exceeds a byte.
    const Int8x8 high_bytes = (codes >> 4) & (codes >> 3) & (codes >> 2) & each(0x01);
    return negate_where(interleave((codes >> 5) & each(0x01), {}), interleave(low_bytes, high_bytes));
  }

 private:
  // Low bytes of the levels of exponents 0 .. 3 and 4 .. 7.
  struct Small {
    static constexpr uint64_t lo = 0x0706050403020100, hi = 0x1c1814100e0c0a08;
  };
  struct Large {
    static constexpr uint64_t lo = 0x7060504038302820, hi = 0xc0804000e0c0a080;
  };
};

}  // namespace rocforge::formats
