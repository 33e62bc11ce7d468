// The CPU's inner loop: blocks of one format to contiguous float32, float16 or bfloat16.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "formats/plain.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

using formats::Float8;

struct HalfOut {
  uint16_t bits;
};
struct BFloat16Out {
  uint16_t bits;
};

// GNU vectors of N lanes; a cast from one to another keeps the bits.
template <int N> struct Lanes {
  typedef float Floats __attribute__((vector_size(4 * N)));
  typedef uint32_t Ints __attribute__((vector_size(4 * N)));
  typedef uint16_t Shorts __attribute__((vector_size(2 * N)));
};

// float32 to bfloat16, nearest even: adding 0x7fff, or 0x8000 when the kept part is odd, carries into it when needed.
template <int N> ROCFORGE_HD void round_to(const typename Lanes<N>::Floats &values, BFloat16Out *out) {
  using Ints = typename Lanes<N>::Ints;
  const Ints bits = (Ints)values, kept = bits >> 16;
  const Ints rounded = (bits + 0x7fff + (kept & 1)) >> 16;
  const Ints quiet_nan = Ints{} + 0x7fc0;
  const auto result = __builtin_convertvector(values != values ? quiet_nan : rounded, typename Lanes<N>::Shorts);
  std::memcpy(out, &result, sizeof result);
}

// float32 to IEEE half, nearest even.
template <int N> ROCFORGE_HD void round_to(const typename Lanes<N>::Floats &values, HalfOut *out) {
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

ROCFORGE_HD void store16(const Float8 &first, const Float8 &second, float *out) {
  std::memcpy(out, &first, sizeof first);
  std::memcpy(out + 8, &second, sizeof second);
}
template <class Out> ROCFORGE_HD void store16(const Float8 &first, const Float8 &second, Out *out) {
#if defined(__AVX512BW__) && __has_builtin(__builtin_shufflevector)
  round_to<16>(__builtin_shufflevector(first, second, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), out);
#elif defined(__AVX2__)
  round_to<8>(first, out);
  round_to<8>(second, out + 8);
#else
  round_to<4>(first.lo, out);
  round_to<4>(first.hi, out + 4);
  round_to<4>(second.lo, out + 8);
  round_to<4>(second.hi, out + 12);
#endif
}

// Weights that share a scale, from `group` on. Every format shares scales between 16 weights at least.
template <class Format, class Out>
ROCFORGE_HD void decode_scale_group(const typename Format::Block &block, int group, Out *out) {
  const formats::Scale scale = Format::scale(block, group);
#pragma GCC unroll 16
  for (int i = 0; i < Format::scale_size / 8; i += 2) {
    Float8 first, second;
    formats::weights8<Format>(Format::levels8(block, group + i), scale, first);
    formats::weights8<Format>(Format::levels8(block, group + i + 1), scale, second);
    store16(first, second, out + 8 * i);
  }
}

// Up to kChunk plain values.
constexpr int kChunk = 64;
template <class Format, class Out>
ROCFORGE_HD void decode_chunk(const typename Format::Block *blocks, int count, Out *out) {
  float values[kChunk] = {};
  for (int i = 0; i < count; ++i) values[i] = Format::value(blocks[i]);
  for (int i = 0; i < kChunk; i += 16) {
    Float8 first, second;
    std::memcpy(&first, values + i, sizeof first);
    std::memcpy(&second, values + i + 8, sizeof second);
    store16(first, second, out + i);
  }
}

// Decodes `weights` weights (whole blocks) that start at `packed` into contiguous `out`.
template <class Format, class Out>
void decode(const uint8_t *__restrict packed, void *__restrict out, int64_t weights) {
  const auto *const blocks = reinterpret_cast<const typename Format::Block *>(packed);
  auto *const first = static_cast<Out *>(out);
  if constexpr (std::is_same_v<Format, formats::F32> && std::is_same_v<Out, float>) {
    std::memcpy(out, packed, weights * sizeof(float));
  } else if constexpr (Format::is_plain) {
    const int64_t whole = weights / kChunk * kChunk;
    for (int64_t i = 0; i < whole; i += kChunk) decode_chunk<Format>(blocks + i, kChunk, first + i);
    Out last[kChunk];
    decode_chunk<Format>(blocks + whole, static_cast<int>(weights - whole), last);
    std::memcpy(first + whole, last, (weights - whole) * sizeof(Out));
  } else {
    for (int64_t b = 0; b < weights / Format::block_size; ++b) {
#pragma GCC unroll 16
      for (int group = 0; group < Format::block_size / 8; group += Format::scale_size / 8) {
        decode_scale_group<Format>(blocks[b], group, first + Format::block_size * b + 8 * group);
      }
    }
  }
}

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
