// What csrc/formats needs from its surroundings, for device code of every back end; formats/host.h is the CPU's.
// Included by gpu.h only.
#pragma once

#define ROCFORGE_HD ROCFORGE_DEVICE

namespace rocforge::formats {

using Word = uint32_t;
struct Int8x8 {
  static constexpr int size = 2;
  Word words[size];
};
struct Int16x8 {
  static constexpr int size = 4;
  Word words[size];
};

// From bytes 0 .. 3 and bytes 4 .. 7.
ROCFORGE_DEVICE Int8x8 join(uint32_t lo, uint32_t hi) { return {{lo, hi}}; }

template <class To, class From> ROCFORGE_DEVICE To bit_cast(const From &from) { return gpu::bits_as<To>(from); }

// Whether blocks begin at multiples of their own alignment (see common.h) in this compilation of a kernel.
#if defined(ROCFORGE_ALIGNED_BLOCKS)
inline constexpr bool kAlignedBlocks = true;
#else
inline constexpr bool kAlignedBlocks = false;
#endif

template <int bytes> struct UnsignedOf;
template <> struct UnsignedOf<2> {
  using type = uint16_t;
};
template <> struct UnsignedOf<4> {
  using type = uint32_t;
};
template <> struct UnsignedOf<8> {
  using type = uint64_t;
};

template <class T, int kAlign = 1> ROCFORGE_DEVICE T load(const uint8_t *p) {
#if defined(ROCFORGE_WORD_LOADS)
  // For kernels that use half of what levels8 gives, from an address 4 bytes on: then the other word is never read.
  if constexpr (sizeof(T) == 8) {
    constexpr int kWordAlign = kAlign < 4 ? kAlign : 4;
    return bit_cast<T>(load<uint32_t, kWordAlign>(p) | uint64_t{load<uint32_t, kWordAlign>(p + 4)} << 32);
  }
#endif
  using Unsigned = typename UnsignedOf<sizeof(T)>::type;
  return bit_cast<T>(gpu::load_packed<Unsigned, kAlignedBlocks ? kAlign : 1>(p));
}

template <class T> ROCFORGE_DEVICE T lookup(const T *table, uint32_t index) { return table[index]; }

ROCFORGE_DEVICE float float_from_half(uint32_t half) { return gpu::to_float(gpu::f16{static_cast<uint16_t>(half)}); }
ROCFORGE_DEVICE float float_from_half_in_loop(uint32_t half) { return float_from_half(half); }

struct Float8 {
  float v[8];
};
ROCFORGE_DEVICE Float8 operator*(Float8 values, float factor) {
#pragma unroll
  for (float &value : values.v) value *= factor;
  return values;
}
ROCFORGE_DEVICE Float8 operator+(Float8 values, float term) {
#pragma unroll
  for (float &value : values.v) value += term;
  return values;
}
ROCFORGE_DEVICE void store(const Float8 &values, float out[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) out[i] = values.v[i];
}

ROCFORGE_DEVICE void to_floats(Int8x8 levels, Float8 &out) {
#pragma unroll
  for (int i = 0; i < 8; ++i) out.v[i] = gpu::float_from_int8(levels.words[i / 4], i % 4);
}
ROCFORGE_DEVICE void to_floats(Int16x8 levels, Float8 &out) {
#pragma unroll
  for (int i = 0; i < 8; ++i) out.v[i] = static_cast<int16_t>(levels.words[i / 2] >> 16 * (i % 2));
}

// Entry i of a table of 16 signed bytes (Table::lo, then Table::hi) for every byte i, each 0 .. 15.
template <class Table> ROCFORGE_DEVICE Int8x8 lookup16(Int8x8 indices) {
  for (Word &word : indices.words) {
    const Word in_half = word & 0x07070707, upper = word >> 3 & 0x01010101;
    const Word mask = (upper << 8) - upper;  // 0xff in the bytes that index the upper half
    word = (gpu::select_bytes(Table::lo, in_half) & ~mask) | (gpu::select_bytes(Table::hi, in_half) & mask);
  }
  return indices;
}

}  // namespace rocforge::formats
