// 16-bit floats on the CPU: bits in memory, float32 in registers.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include <cstdint>
#include <cstring>

#include "formats/host.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

struct HalfBits {
  uint16_t bits;
};
struct BFloat16Bits {
  uint16_t bits;
};

ROCFORGE_HD float number(HalfBits x) { return formats::float_from_half(x.bits); }
ROCFORGE_HD float number(BFloat16Bits x) { return formats::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

// GNU vectors of N lanes; a cast from one to another keeps the bits.
template <int N> struct Lanes {
  typedef float Floats __attribute__((vector_size(4 * N)));
  typedef uint32_t Ints __attribute__((vector_size(4 * N)));
  typedef uint16_t Shorts __attribute__((vector_size(2 * N)));
};

// float32 to bfloat16, nearest even: adding 0x7fff, or 0x8000 when the kept part is odd, carries into it when needed.
template <int N> ROCFORGE_HD void round_to(const typename Lanes<N>::Floats &values, BFloat16Bits *out) {
  using Ints = typename Lanes<N>::Ints;
  const Ints bits = (Ints)values, kept = bits >> 16;
  const Ints rounded = (bits + 0x7fff + (kept & 1)) >> 16;
  const Ints quiet_nan = Ints{} + 0x7fc0;
  const auto result = __builtin_convertvector(values != values ? quiet_nan : rounded, typename Lanes<N>::Shorts);
  std::memcpy(out, &result, sizeof result);
}

// float32 to IEEE half, nearest even.
template <int N> ROCFORGE_HD void round_to(const typename Lanes<N>::Floats &values, HalfBits *out) {
  using Floats = typename Lanes<N>::Floats;
  using Ints = typename Lanes<N>::Ints;
  const Ints bits = (Ints)values, full = bits & 0x7fffffff;
  const Ints infinity = Ints{} + 0x47800000, quiet_nan = Ints{} + 0x7e00;  // 65536 rounds to half's infinity
  const Ints magnitude = full < infinity ? full : infinity;
  // Below 2^-14 the result counts units of 2^-24: adding 0.5 leaves that count, rounded, in the low bits.
  const Ints small = (Ints)((Floats)magnitude + 0.5f) - 0x3f000000;
  const Ints normal = (magnitude - (0x38000000 - 0x0fff) + ((magnitude >> 13) & 1)) >> 13;
  const Ints number = magnitude < 0x38800000 ? small : normal;
  const Ints half = (values != values ? quiet_nan : number) | ((bits ^ full) >> 16);
  const auto result = __builtin_convertvector(half, typename Lanes<N>::Shorts);
  std::memcpy(out, &result, sizeof result);
}

// `count` numbers, rounded to float32 first.
template <class Acc, class Bits> ROCFORGE_HD void round_row(const Acc *values, int64_t count, Bits *out) {
  constexpr int kChunk = 8;
  const auto round8 = [](const Acc *from, int n, Bits *to) {
    typename Lanes<kChunk>::Floats floats{};
    for (int i = 0; i < n; ++i) floats[i] = static_cast<float>(from[i]);
    round_to<kChunk>(floats, to);
  };
  int64_t i = 0;
  for (; i + kChunk <= count; i += kChunk) round8(values + i, kChunk, out + i);
  Bits last[kChunk];
  round8(values + i, static_cast<int>(count - i), last);
  std::memcpy(out + i, last, (count - i) * sizeof(Bits));
}

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
