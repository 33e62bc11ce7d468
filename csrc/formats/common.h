// What every format is made of: byte-aligned fields, eight levels held as bytes of a word, and decode8.
//
// A quantised format describes one block (struct Block, alignment 1) by two functions, each for a group of 8
// consecutive weights:
//     scale(block, group)   -> Scale                float32 scale and offset
//     levels8(block, group) -> Int8x8 or Int16x8    8 small integers, exact in bfloat16 and float16
// and weight = d * (level * level_unit) [+ offset], in ggml's own order of operations, bit for bit. Each scale_size
// weights, 16 at least, share a scale.
// A plain type (block_size 1) has value(block) instead.
//
// A block starts at any byte. But most start well: load<T, kAlign>(p) and load8<kAlign>(p) promise that p is a multiple
// of kAlign where the block begins at a multiple of the largest power of two, up to 16, that divides its size. Kernels
// that have checked the latter then read whole words; the others read bytes.
//
// The surroundings supply ROCFORGE_HD, ROCFORGE_TABLE, Word, Int8x8, Int16x8, Float8, load, join, lookup, lookup16,
// bit_cast, float_from_half, float_from_half_in_loop, to_floats and store: host.h here, gpu.h in device code, which
// includes it first.
#pragma once

#include <cstdint>
#ifndef ROCFORGE_HD
  #include "formats/host.h"
#endif

namespace rocforge::formats {

// Fields of several bytes, without alignment: a block may start at any byte.
struct Half {
  uint8_t bytes[2];
};
struct Float {
  uint8_t bytes[4];
};

ROCFORGE_HD float to_float(const Half &half) { return float_from_half(load<uint16_t, 2>(half.bytes)); }
ROCFORGE_HD float to_float(const Float &value) { return load<float, 4>(value.bytes); }

struct Scale {
  float d;
  float offset = 0.0f;
};

// `byte` in every byte of a word.
ROCFORGE_HD constexpr Word each(uint32_t byte) { return ~Word{0} / 255 * byte; }

// Word by word. Shifts move bits across bytes: mask afterwards. Sums of bytes must stay below 256.
template <class Words, int size = Words::size> ROCFORGE_HD Words operator>>(Words a, int bits) {
  for (Word &word : a.words) word >>= bits;
  return a;
}
template <class Words, int size = Words::size> ROCFORGE_HD Words operator<<(Words a, int bits) {
  for (Word &word : a.words) word <<= bits;
  return a;
}
template <class Words, int size = Words::size> ROCFORGE_HD Words operator&(Words a, Word mask) {
  for (Word &word : a.words) word &= mask;
  return a;
}
template <class Words, int size = Words::size> ROCFORGE_HD Words operator+(Words a, Word b) {
  for (Word &word : a.words) word += b;
  return a;
}
template <class Words, int size = Words::size> ROCFORGE_HD Words operator&(Words a, Words b) {
  for (int i = 0; i < size; ++i) a.words[i] &= b.words[i];
  return a;
}
template <class Words, int size = Words::size> ROCFORGE_HD Words operator|(Words a, Words b) {
  for (int i = 0; i < size; ++i) a.words[i] |= b.words[i];
  return a;
}
template <class Words, int size = Words::size> ROCFORGE_HD Words operator^(Words a, Words b) {
  for (int i = 0; i < size; ++i) a.words[i] ^= b.words[i];
  return a;
}
template <class Words, int size = Words::size> ROCFORGE_HD Words operator+(Words a, Words b) {
  for (int i = 0; i < size; ++i) a.words[i] += b.words[i];
  return a;
}
template <class Words, int size = Words::size> ROCFORGE_HD Words operator-(Words a, Words b) {
  for (int i = 0; i < size; ++i) a.words[i] -= b.words[i];
  return a;
}

// Each byte minus `value`, as signed bytes; bytes and value are 0 .. 127. The set top bit keeps borrows in their byte.
ROCFORGE_HD Int8x8 subtract(Int8x8 a, uint32_t value) {
  for (Word &word : a.words) word = ((word | each(0x80)) - each(value)) ^ each(0x80);
  return a;
}

template <int kAlign = 1> ROCFORGE_HD Int8x8 load8(const uint8_t *p) {
  const auto bytes = load<uint64_t, kAlign>(p);
  return join(static_cast<uint32_t>(bytes), static_cast<uint32_t>(bytes >> 32));
}

// Byte i of a field of whole words. The CPU reads the word: g++ spills single bytes and reads them back as words, which
// stalls.
ROCFORGE_HD uint32_t byte_of(const uint8_t *field, int i) {
  if constexpr (sizeof(Word) == 8) {
    return load<uint32_t>(field + (i & ~3)) >> 8 * (i & 3) & 0xff;
  } else {
    return field[i];
  }
}

// The i-th four bits (0 .. 1), or the i-th two bits (0 .. 3), of every byte.
ROCFORGE_HD Int8x8 nibbles(Int8x8 bytes, int i) { return (bytes >> 4 * i) & each(0x0f); }
ROCFORGE_HD Int8x8 crumbs(Int8x8 bytes, int i) { return (bytes >> 2 * i) & each(0x03); }

// The lowest eight bits, one a byte.
ROCFORGE_HD Int8x8 unpack1(uint32_t bits) {
  Int8x8 bytes = join(bits & 0x0f, bits >> 4 & 0x0f);
  for (Word &word : bytes.words) word = word * 0x00204081 & each(0x01);  // bit i moves up by 7 i; no two products meet
  return bytes;
}

// Four codes of two bits, the lowest first, one a byte.
ROCFORGE_HD uint32_t unpack2(uint32_t byte) {
  const uint32_t pairs = (byte | byte << 12) & 0x000f000f;
  return (pairs | pairs << 6) & 0x03030303;
}

// Bytes 0x00 and 0x01 to 0x00 and 0xff.
ROCFORGE_HD Int8x8 mask_from_bits(Int8x8 bits) { return (bits << 8) - bits; }

// Element i, by value: for tests and single weights.
ROCFORGE_HD int level(Int8x8 levels, int i) {
  constexpr int kPerWord = sizeof(Word);
  return static_cast<int8_t>(levels.words[i / kPerWord] >> 8 * (i % kPerWord));
}
ROCFORGE_HD int level(Int16x8 levels, int i) {
  constexpr int kPerWord = sizeof(Word) / 2;
  return static_cast<int16_t>(levels.words[i / kPerWord] >> 16 * (i % kPerWord));
}

// Defaults of a format's optional constants.
struct QuantizedFormat {
  static constexpr bool is_plain = false;
  static constexpr bool has_offset = false;  // without an offset nothing is added, so that -0 stays -0
  static constexpr float level_unit = 1.0f;
  static constexpr bool has_values = false;  // values8(block, group, float[8]): level * level_unit by a shorter way
};
struct PlainFormat {
  static constexpr bool is_plain = true;
  static constexpr int block_size = 1;
};

// Eight weights from their levels.
template <class F, class Levels> ROCFORGE_HD void weights8(Levels levels, Scale scale, Float8 &out) {
  to_floats(levels, out);
  if constexpr (F::level_unit != 1.0f) out = out * F::level_unit;
  out = out * scale.d;
  if constexpr (F::has_offset) out = out + scale.offset;
}

// Weights 8 * group .. 8 * group + 7 of one block.
template <class F> ROCFORGE_HD void decode8(const typename F::Block &block, int group, float out[8]) {
  if constexpr (F::has_values) {
    F::values8(block, group, out);
    const float d = F::scale(block, group).d;
    for (int i = 0; i < 8; ++i) out[i] *= d;
  } else {
    Float8 weights;
    weights8<F>(F::levels8(block, group), F::scale(block, group), weights);
    store(weights, out);
  }
}

// Weights 8 * group .. 8 * group + 7 of a row of blocks, plain types too.
template <class F> ROCFORGE_HD void decode8(const typename F::Block *row, int64_t group, float out[8]) {
  if constexpr (F::is_plain) {
    for (int i = 0; i < 8; ++i) out[i] = F::value(row[8 * group + i]);
  } else {
    constexpr int kGroups = F::block_size / 8;
    decode8<F>(row[group / kGroups], static_cast<int>(group % kGroups), out);
  }
}

}  // namespace rocforge::formats
