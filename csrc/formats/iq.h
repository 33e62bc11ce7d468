// What the IQ formats share: magnitudes from a codebook, signs from bits.
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

ROCFORGE_HD Int8x8 bytes_of(uint64_t entry) {
  return join(static_cast<uint32_t>(entry), static_cast<uint32_t>(entry >> 32));
}

// Magnitudes 1 .. 127, negated where the bit of that position is set.
ROCFORGE_HD Int8x8 apply_signs(Int8x8 magnitudes, uint32_t signs) {
  const Int8x8 negative = unpack1(signs);
  return (magnitudes ^ mask_from_bits(negative)) + negative;  // ~x + 1, which carries for x = 0 only
}

// Seven signs and the eighth that makes the number of negative ones even.
ROCFORGE_HD uint32_t even_signs(uint32_t seven) {
  constexpr uint32_t kParity = 0x6996;  // bit i: parity of the number i
  const uint32_t folded = (seven ^ seven >> 4) & 0x0f;
  return seven | (kParity >> folded & 1) << 7;
}

}  // namespace rocforge::formats
