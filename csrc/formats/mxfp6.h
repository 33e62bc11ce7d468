// The blocks of the two MXFP6 formats (OCP MX v1.0): 32 codes of six bits, sign on top, under one E8M0 scale.
#pragma once

#include "formats/common.h"
#include "formats/scale_types.h"

namespace rocforge::formats {

struct MXFP6Block {
  uint8_t e;
  uint8_t qs[24];  // the codes in a row, the lowest bit first
};

// Four codes of six bits, the lowest first, one a byte.
ROCFORGE_HD uint32_t unpack6(uint32_t bits) {
  const uint32_t pairs = (bits & 0x000fff) | (bits & 0xfff000) << 4;
  return (pairs & 0x003f003f) | (pairs & 0x0fc00fc0) << 2;
}

// Codes 8 * group .. 8 * group + 7: four in each word, the lowest first, and bits that are none of theirs above.
struct MXFP6Codes {
  uint32_t low, high;
};
ROCFORGE_HD MXFP6Codes mxfp6_bits(const MXFP6Block &block, int group) {
  const uint8_t *const qs = block.qs + 6 * group;
  const uint32_t low = load<uint32_t>(qs), high = load<uint16_t>(qs + 4);
  return {low, low >> 24 | high << 8};
}

// The same, one a byte.
ROCFORGE_HD Int8x8 mxfp6_codes(const MXFP6Block &block, int group) {
  const MXFP6Codes codes = mxfp6_bits(block, group);
  return join(unpack6(codes.low), unpack6(codes.high));
}

// Their values. A code whose sign, exponent and mantissa stand where those of a float32 do is its value over 2^(127 -
// bias); with an exponent of 0 it is a subnormal there too. Minus zero becomes zero.
template <int kMantissaBits> ROCFORGE_HD void mxfp6_values(MXFP6Codes codes, float values[8]) {
  constexpr int kShift = 3 + kMantissaBits;
  constexpr uint32_t kMask = 1u << 31 | 0x1fu << (26 - kShift);
  constexpr float kUnit = kMantissaBits == 2 ? 0x1p124f : 0x1p126f;
  for (int i = 0; i < 8; ++i) {
    const uint32_t on_top = (i < 4 ? codes.low : codes.high) << (26 - 6 * (i % 4));
    const auto placed = static_cast<uint32_t>(static_cast<int32_t>(on_top) >> kShift) & kMask;
    values[i] = bit_cast<float>(placed) * kUnit + 0.0f;
  }
}

// Magnitudes with the sign of the bit in the same position; zero stays zero.
ROCFORGE_HD Int8x8 negate_where(Int8x8 bits, Int8x8 magnitudes) {
  const Int8x8 complement = magnitudes ^ mask_from_bits(bits);
  return ((complement & each(0x7f)) + bits) ^ (complement & each(0x80));
}
ROCFORGE_HD Int16x8 negate_where(Int16x8 bits, Int16x8 magnitudes) {
  constexpr Word kTop = ~Word{0} / 0xffff * 0x8000;
  const Int16x8 complement = magnitudes ^ ((bits << 16) - bits);
  return ((complement & ~kTop) + bits) ^ (complement & kTop);
}

// Bytes of the lower half of a word, each widened to 16 bits.
ROCFORGE_HD Word widen(Word bytes) {
  if constexpr (sizeof(Word) == 8) bytes = (bytes | bytes << 16) & 0x0000ffff0000ffff;
  return (bytes | bytes << 8) & ~Word{0} / 0xffff * 0x00ff;
}

// Sixteen-bit integers from their low and high bytes.
ROCFORGE_HD Int16x8 interleave(Int8x8 low, Int8x8 high) {
  constexpr Word kLower = ~Word{0} >> 4 * sizeof(Word);
  Int16x8 result;
  for (int i = 0; i < Int16x8::size; ++i) {
    const int shift = i % 2 * 4 * static_cast<int>(sizeof(Word));
    result.words[i] = widen(low.words[i / 2] >> shift & kLower) | widen(high.words[i / 2] >> shift & kLower) << 8;
  }
  return result;
}

}  // namespace rocforge::formats
