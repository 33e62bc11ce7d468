// The CPU's inner loop: blocks of one format to contiguous float32, float16 or bfloat16.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "formats/plain.h"
#include "ops/cpu/half.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

using formats::Float8;

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
