// The CPU's inner loop: blocks of one format to contiguous float32, float16 or bfloat16.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include <cstdint>
#include <cstring>

#include "formats/common.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

using formats::decode8;

typedef float Float8 __attribute__((vector_size(32)));
typedef uint32_t UInt8 __attribute__((vector_size(32)));
typedef uint16_t Short8 __attribute__((vector_size(16)));

struct HalfOut {
  uint16_t bits;
};
struct BFloat16Out {
  uint16_t bits;
};

ROCFORGE_HD void store8(const float *values, float *out) { std::memcpy(out, values, 32); }

// float32 to bfloat16, nearest even: adding 0x7fff, or 0x8000 when the kept part is odd, carries into it when needed.
ROCFORGE_HD void store8(const float *values, BFloat16Out *out) {
  UInt8 bits;
  std::memcpy(&bits, values, sizeof bits);
  const UInt8 rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const UInt8 quiet_nan = (bits >> 16) | 0x40;
  const UInt8 is_nan = (UInt8)((bits & 0x7fffffff) > 0x7f800000);
  const Short8 result = __builtin_convertvector((is_nan & quiet_nan) | (~is_nan & rounded), Short8);
  std::memcpy(out, &result, sizeof result);
}

// float32 to IEEE half, nearest even.
ROCFORGE_HD void store8(const float *values, HalfOut *out) {
  UInt8 bits;
  std::memcpy(&bits, values, sizeof bits);
  const UInt8 sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  // Below 2^-14 the result counts units of 2^-24: adding 0.5 leaves that count, rounded, in the low bits.
  const UInt8 small = (UInt8)((Float8)(magnitude) + 0.5f) - 0x3f000000;
  const UInt8 normal = (magnitude - 0x38000000 + 0x0fff + ((magnitude >> 13) & 1)) >> 13;
  const UInt8 is_small = (UInt8)(magnitude < 0x38800000);
  const UInt8 is_large = (UInt8)(magnitude >= 0x47800000), is_nan = (UInt8)(magnitude > 0x7f800000);
  const UInt8 large = (is_nan & (0x0200 | ((magnitude >> 13) & 0x3ff))) | 0x7c00;
  const UInt8 finite = (is_small & small) | (~is_small & normal);
  const Short8 result = __builtin_convertvector(sign | (is_large & large) | (~is_large & finite), Short8);
  std::memcpy(out, &result, sizeof result);
}

// Decodes `weights` weights (whole blocks) that start at `packed` into contiguous `out`.
template <class Format, class Out> void decode(const uint8_t *packed, void *out, int64_t weights) {
  using Block = typename Format::Block;
  const auto *const blocks = reinterpret_cast<const Block *>(packed);
  auto *const first = static_cast<Out *>(out);
  float values[8];
  for (int64_t group = 0; group < weights / 8; ++group) {
    decode8<Format>(blocks, group, values);
    store8(values, first + 8 * group);
  }
  if constexpr (Format::is_plain) {
    Out last[8];
    const int64_t done = weights / 8 * 8;
    for (int i = 0; i < 8; ++i) values[i] = done + i < weights ? Format::value(blocks[done + i]) : 0.0f;
    store8(values, last);
    std::memcpy(first + done, last, (weights - done) * sizeof(Out));
  }
}

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
