// What the formats need from their surroundings, for a host compiler of any instruction set. Device code supplies the
// same names before it includes a format (see common.h).
#pragma once

#include <cstdint>
#include <cstring>

// Always inlined: the same header is compiled for several instruction sets, whose copies must not meet in the linker.
#define ROCFORGE_HD inline __attribute__((always_inline))
// Storage of a codebook.
#define ROCFORGE_TABLE inline constexpr

namespace rocforge::formats {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "packed weights are little-endian");

// Packed bytes start anywhere: these are the only reads of more than one byte.
ROCFORGE_HD uint32_t load_u16(const uint8_t *p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

ROCFORGE_HD uint32_t load_u32(const uint8_t *p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

ROCFORGE_HD uint64_t load_u64(const uint8_t *p) {
  uint64_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

ROCFORGE_HD double load_f64(const uint8_t *p) {
  double value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <class T>
ROCFORGE_HD T lookup(const T *table, uint32_t index) {
  return table[index];
}

ROCFORGE_HD float float_from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// IEEE half to float, exact for all 65536 values. Integer and float arithmetic only: compilers turn _Float16 into a
// library call where the processor has no instruction for it.
ROCFORGE_HD float float_from_half(uint32_t half) {
#if defined(__F16C__) && defined(__FLT16_MAX__)
  const uint16_t bits = static_cast<uint16_t>(half);
  _Float16 value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
#else
  const uint32_t magnitude = half & 0x7fff;
  // Subnormals count units of 2^-24; normal numbers move to float's exponent bias; inf and NaN to its top exponent.
  const float value = magnitude < 0x0400   ? static_cast<float>(magnitude) * 0x1p-24f
                      : magnitude < 0x7c00 ? float_from_bits((magnitude << 13) + 0x38000000)
                                           : float_from_bits((magnitude << 13) | 0x7f800000);
  return (half & 0x8000) ? -value : value;
#endif
}

}  // namespace rocforge::formats
