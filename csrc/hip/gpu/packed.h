// Packed weights on their way from global memory through LDS into the matrix cores, each step in the vendor's best way.
//   PackedRange              bytes begin .. end - 1 of a row
//   load_packed_word(word, range)       the 16 bytes at `word`, which is aligned; zeros where it lies behind the range.
//                            What surrounds the range in its first and last word comes along
//   copy_packed_async(to, word, range)  the same to LDS, aligned; there after copies_arrived (gpu/tile_moves.h) and a
//                            barrier. Only where kHasAsyncCopies
//   level_pairs<T, kWide>(levels)  four signed bytes as four values of T. Without kWide they are -64 .. 63
//   upper_halves(low, high)        the upper 16 bits of two floats, `low` in the low half
#pragma once

#include "hip/gpu/tile_moves.h"

namespace rocforge::gpu {

struct PackedRange {
  const uint8_t *begin, *end;
};
using PackedWord = Vec<uint32_t, 4>;

inline constexpr bool kHasAsyncCopies = is_nvidia(kArch);

#if defined(ROCFORGE_EMULATE)

// Bytes outside of the range are none of the kernel's business, and may be outside of the tensor: never used.
ROCFORGE_DEVICE PackedWord load_packed_word(const uint8_t *word, PackedRange range) {
  uint8_t bytes[16] = {};
  const uint8_t *const begin = word < range.begin ? range.begin : word;
  const uint8_t *const end = word + 16 < range.end ? word + 16 : range.end;
  if (begin < end) memcpy(bytes + (begin - word), begin, end - begin);
  return bits_as<PackedWord>(bytes);
}

template <class T, bool kWide> ROCFORGE_DEVICE Vec<uint32_t, 2> level_pairs(uint32_t levels) {
  Vec<uint32_t, 2> pairs;
  for (int i = 0; i < 2; ++i) {
    pairs[i] = pack<T>(float_from_int8(levels, 2 * i), float_from_int8(levels, 2 * i + 1));
  }
  return pairs;
}
ROCFORGE_DEVICE uint32_t upper_halves(float low, float high) {
  return bits_as<uint32_t>(low) >> 16 | (bits_as<uint32_t>(high) & 0xffff0000);
}

#elif defined(__HIP__)

ROCFORGE_DEVICE PackedWord load_packed_word(const uint8_t *word, PackedRange range) {
  return word < range.end ? load<4>(reinterpret_cast<const uint32_t *>(word)) : PackedWord{};
}

template <class T, bool kWide> ROCFORGE_DEVICE Vec<uint32_t, 2> level_pairs(uint32_t levels);

ROCFORGE_DEVICE uint32_t upper_halves(float low, float high) {
  return __builtin_amdgcn_perm(bits_as<uint32_t>(high), bits_as<uint32_t>(low), 0x07060302);
}

// Small integers end in zeros as floats: the upper halves are their bfloat16.
template <> ROCFORGE_DEVICE Vec<uint32_t, 2> level_pairs<bf16, true>(uint32_t levels) {
  return {{upper_halves(float_from_int8(levels, 0), float_from_int8(levels, 1)),
           upper_halves(float_from_int8(levels, 2), float_from_int8(levels, 3))}};
}
template <> ROCFORGE_DEVICE Vec<uint32_t, 2> level_pairs<bf16, false>(uint32_t levels) {
  return level_pairs<bf16, true>(levels);
}
// The byte level + 128 under the upper byte of 1024 is 1152 + level.
template <> ROCFORGE_DEVICE Vec<uint32_t, 2> level_pairs<f16, true>(uint32_t levels) {
  typedef _Float16 Pair __attribute__((ext_vector_type(2)));
  const Pair base = {1152, 1152};
  const uint32_t bytes = levels ^ 0x80808080;
  return {{bits_as<uint32_t>(bits_as<Pair>(__builtin_amdgcn_perm(0x64646464, bytes, 0x04010400)) - base),
           bits_as<uint32_t>(bits_as<Pair>(__builtin_amdgcn_perm(0x64646464, bytes, 0x04030402)) - base)}};
}
template <> ROCFORGE_DEVICE Vec<uint32_t, 2> level_pairs<f16, false>(uint32_t levels) {
  return level_pairs<f16, true>(levels);
}

#else

ROCFORGE_DEVICE PackedWord load_packed_word(const uint8_t *word, PackedRange range) {
  return word < range.end ? load<4>(reinterpret_cast<const uint32_t *>(word)) : PackedWord{};
}

template <class T, bool kWide> ROCFORGE_DEVICE Vec<uint32_t, 2> level_pairs(uint32_t levels);

ROCFORGE_DEVICE uint32_t upper_halves(float low, float high) {
  return __byte_perm(bits_as<uint32_t>(low), bits_as<uint32_t>(high), 0x7632);
}

ROCFORGE_DEVICE uint32_t subtract_bf16(uint32_t a, uint32_t b) {
  return bits_as<uint32_t>(__hsub2(bits_as<__nv_bfloat162>(a), bits_as<__nv_bfloat162>(b)));
}
ROCFORGE_DEVICE uint32_t subtract_f16(uint32_t a, uint32_t b) {
  return bits_as<uint32_t>(__hsub2(bits_as<__half2>(a), bits_as<__half2>(b)));
}

// The byte level + 128 under the upper byte of 1024 is 1152 + level.
template <> ROCFORGE_DEVICE Vec<uint32_t, 2> level_pairs<f16, true>(uint32_t levels) {
  const uint32_t bytes = levels ^ 0x80808080;
  return {{subtract_f16(__byte_perm(bytes, 0x64646464, 0x4140), 0x64806480),
           subtract_f16(__byte_perm(bytes, 0x64646464, 0x4342), 0x64806480)}};
}
template <> ROCFORGE_DEVICE Vec<uint32_t, 2> level_pairs<f16, false>(uint32_t levels) {
  return level_pairs<f16, true>(levels);
}
// Seven bits level + 64 under the upper byte of 128 are 192 + level.
template <> ROCFORGE_DEVICE Vec<uint32_t, 2> level_pairs<bf16, false>(uint32_t levels) {
  const uint32_t bytes = (levels & 0x7f7f7f7f) ^ 0x40404040;
  return {{subtract_bf16(__byte_perm(bytes, 0x43434343, 0x4140), 0x43404340),
           subtract_bf16(__byte_perm(bytes, 0x43434343, 0x4342), 0x43404340)}};
}
// The low seven bits under the upper byte of 128, less 128 or, where the eighth is set, 256: the number that the upper
// byte and the eighth bit are.
template <> ROCFORGE_DEVICE Vec<uint32_t, 2> level_pairs<bf16, true>(uint32_t levels) {
  const uint32_t low = __byte_perm(levels, 0x43434343, 0x4140), high = __byte_perm(levels, 0x43434343, 0x4342);
  return {{subtract_bf16(low & 0xff7fff7f, low & 0xff80ff80), subtract_bf16(high & 0xff7fff7f, high & 0xff80ff80)}};
}

#endif

ROCFORGE_DEVICE void copy_packed_async(PackedWord *to, const uint8_t *word, PackedRange range) {
#if defined(ROCFORGE_EMULATE)
  *to = load_packed_word(word, range);
#else
  copy_async(to, word < range.end ? word : range.begin - (reinterpret_cast<uintptr_t>(range.begin) & 15),
             word < range.end);
#endif
}

}  // namespace rocforge::gpu
