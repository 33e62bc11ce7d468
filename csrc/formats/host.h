// What the formats need from their surroundings, for a host compiler and any instruction set. Device code supplies the
// same names before it includes a format (see common.h).
#pragma once

#include <cstdint>
#include <cstring>

// Always inlined: the same headers are compiled for several instruction sets, whose copies must not meet in the linker.
#define ROCFORGE_HD inline __attribute__((always_inline))
// Storage of a codebook.
#define ROCFORGE_TABLE inline constexpr

namespace rocforge::formats {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "packed weights are little-endian");

// Eight bytes and eight 16-bit integers in element order, the first lowest, as few words as the processor can work on.
using Word = uint64_t;
struct Int8x8 {
  static constexpr int size = 1;
  Word words[size];
};
struct Int16x8 {
  static constexpr int size = 2;
  Word words[size];
};

// From bytes 0 .. 3 and bytes 4 .. 7.
ROCFORGE_HD Int8x8 join(uint32_t lo, uint32_t hi) { return {{lo | static_cast<uint64_t>(hi) << 32}}; }

// Packed values start at any byte: this is the only read of more than one.
template <class T, int kAlign = 1> ROCFORGE_HD T load(const uint8_t *p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

template <class T> ROCFORGE_HD T lookup(const T *table, uint32_t index) { return table[index]; }

template <class To, class From> ROCFORGE_HD To bit_cast(const From &from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// IEEE half to float, exact for all 65536 values, in integer arithmetic and masks: g++ 12 vectorises no loop over
// _Float16.
ROCFORGE_HD float float_from_half_in_loop(uint32_t half) {
  const uint32_t shifted = (half & 0x7fff) << 13;
  const uint32_t is_subnormal = -static_cast<uint32_t>(shifted < 0x00800000);
  const uint32_t is_special = -static_cast<uint32_t>(shifted >= 0x0f800000);  // inf and NaN: all exponent bits set
  // Subnormals count units of 2^-24: put below the leading 1 of 2^-14, which is taken off again.
  const uint32_t subnormal = bit_cast<uint32_t>(bit_cast<float>(shifted + 0x38800000) - 0x1p-14f);
  const uint32_t normal = shifted + 0x38000000 + (is_special & 0x38000000);
  const uint32_t magnitude = (is_subnormal & subnormal) | (~is_subnormal & normal);
  return bit_cast<float>(magnitude | (half & 0x8000) << 16);
}

// The same for a single value: by the processor's instruction where it has one (elsewhere _Float16 is a library call).
ROCFORGE_HD float float_from_half(uint32_t half) {
#if defined(__FLT16_MAX__) && (defined(__F16C__) || defined(__ARM_FEATURE_FP16_SCALAR_ARITHMETIC))
  return bit_cast<_Float16>(static_cast<uint16_t>(half));
#else
  return float_from_half_in_loop(half);
#endif
}

// GNU vector extensions; a cast from one vector type to another keeps the bits.
#if __has_builtin(__builtin_shufflevector)
  #define ROCFORGE_SHUFFLE(vector, ...) __builtin_shufflevector(vector, vector, __VA_ARGS__)
#else  // g++ 11
  #define ROCFORGE_SHUFFLE(vector, ...) __builtin_shuffle(vector, (__typeof__(+(vector))){__VA_ARGS__})
#endif
typedef float Float4 __attribute__((vector_size(16)));
typedef int32_t Int32x4 __attribute__((vector_size(16)));
typedef int16_t Int16Lanes __attribute__((vector_size(16)));
typedef int8_t Int8Lanes __attribute__((vector_size(16)));
typedef uint64_t Pair __attribute__((vector_size(16)));

#if defined(__AVX2__)

typedef float Float8 __attribute__((vector_size(32)));
typedef int32_t Int32x8 __attribute__((vector_size(32)));

// Eight signed bytes to float. g++ 12 has no good code for a conversion of int8 vectors, but it has for these: every
// byte repeated through a 32-bit lane, then shifted down with its sign.
ROCFORGE_HD void to_floats(Int8x8 levels, Float8 &out) {
  typedef uint64_t Quads __attribute__((vector_size(32)));
  typedef int8_t Bytes __attribute__((vector_size(32)));
  const uint64_t word = levels.words[0];
  const Bytes bytes = (Bytes)Quads{word, word, word, word};
  const Bytes repeated = ROCFORGE_SHUFFLE(bytes, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3,  //
                                          20, 20, 20, 20, 21, 21, 21, 21, 22, 22, 22, 22, 23, 23, 23, 23);
  out = __builtin_convertvector((Int32x8)repeated >> 24, Float8);
}
ROCFORGE_HD void to_floats(Int16x8 levels, Float8 &out) {
  const Int16Lanes lanes = (Int16Lanes)Pair{levels.words[0], levels.words[1]};
  out = __builtin_convertvector(__builtin_convertvector(lanes, Int32x8), Float8);
}

#else

// Two registers of 16 bytes: g++ splits wider vectors into single elements.
struct Float8 {
  Float4 lo, hi;
};
ROCFORGE_HD Float8 operator*(Float8 values, float factor) { return {values.lo * factor, values.hi * factor}; }
ROCFORGE_HD Float8 operator+(Float8 values, float term) { return {values.lo + term, values.hi + term}; }

// As above, in steps that every instruction set has: each lane twice, and shifted down with its sign.
ROCFORGE_HD void to_floats(Int16Lanes lanes, int shift, Float8 &out) {
  out.lo = __builtin_convertvector((Int32x4)ROCFORGE_SHUFFLE(lanes, 0, 0, 1, 1, 2, 2, 3, 3) >> shift, Float4);
  out.hi = __builtin_convertvector((Int32x4)ROCFORGE_SHUFFLE(lanes, 4, 4, 5, 5, 6, 6, 7, 7) >> shift, Float4);
}
ROCFORGE_HD void to_floats(Int8x8 levels, Float8 &out) {
  const Int8Lanes bytes = (Int8Lanes)Pair{levels.words[0]};
  to_floats((Int16Lanes)ROCFORGE_SHUFFLE(bytes, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), 24, out);
}
ROCFORGE_HD void to_floats(Int16x8 levels, Float8 &out) {
  to_floats((Int16Lanes)Pair{levels.words[0], levels.words[1]}, 16, out);
}

#endif

ROCFORGE_HD void store(const Float8 &values, float out[8]) { std::memcpy(out, &values, sizeof values); }

// Entry i of a table of 16 signed bytes (Table::lo, then Table::hi) for every byte i, each 0 .. 15.
template <class Table> ROCFORGE_HD Int8x8 lookup16(Int8x8 indices) {
  const Int8Lanes entries = (Int8Lanes)Pair{Table::lo, Table::hi};
  const Int8Lanes lanes = (Int8Lanes)Pair{indices.words[0], indices.words[0]};
#if defined(__clang__)
  const Pair found = (Pair)__builtin_shufflevector(entries, lanes);
#else
  const Pair found = (Pair)__builtin_shuffle(entries, lanes);
#endif
  return {{found[0]}};
}

}  // namespace rocforge::formats
