// What every block format is made of: byte-aligned fields, eight levels as two words of signed bytes, and decode8.
//
// A quantised format describes one block (struct Block, alignment 1) by two functions, each for a group of 8
// consecutive weights:
//     scale(block, group)   -> Scale    float32 scale and offset
//     levels8(block, group) -> Int8x8   8 small integers, exact in bfloat16 and float16
// and   weight = d * (level * level_unit) [+ offset],   in ggml's own order of operations, bit for bit.
// A plain type (block_size 1) has value(block) instead.
//
// The surroundings supply ROCFORGE_HD, ROCFORGE_TABLE, load_u16, load_u32, load_u64, load_f64, lookup,
// float_from_bits and float_from_half:
// host.h here, gpu.h in device code, which includes it first.
#pragma once

#include <cstdint>
#ifndef ROCFORGE_HD
#  include "formats/host.h"
#endif

namespace rocforge::formats {

// Fields of several bytes, without alignment: a block may start at any byte.
struct Half {
  uint8_t bytes[2];
};
struct Float {
  uint8_t bytes[4];
};

ROCFORGE_HD float to_float(const Half &half) { return float_from_half(load_u16(half.bytes)); }
ROCFORGE_HD float to_float(const Float &value) { return float_from_bits(load_u32(value.bytes)); }

struct Scale {
  float d;
  float offset = 0.0f;
};

// Eight bytes in element order, worked on as two words: byte i of `lo` is element i, byte i of `hi` element i + 4.
struct Int8x8 {
  uint32_t lo, hi;
};

// `byte` in each of a word's four bytes.
constexpr uint32_t each(uint32_t byte) { return byte * 0x01010101u; }

// Shifts move bits across bytes: mask afterwards.
ROCFORGE_HD Int8x8 operator>>(Int8x8 a, int bits) { return {a.lo >> bits, a.hi >> bits}; }
ROCFORGE_HD Int8x8 operator<<(Int8x8 a, int bits) { return {a.lo << bits, a.hi << bits}; }
ROCFORGE_HD Int8x8 operator&(Int8x8 a, uint32_t mask) { return {a.lo & mask, a.hi & mask}; }
ROCFORGE_HD Int8x8 operator|(Int8x8 a, Int8x8 b) { return {a.lo | b.lo, a.hi | b.hi}; }

ROCFORGE_HD Int8x8 load8(const uint8_t *p) { return {load_u32(p), load_u32(p + 4)}; }

// byte - value for each byte; bytes and value in 0..127. The set top bit keeps borrows inside each byte.
ROCFORGE_HD Int8x8 subtract(Int8x8 a, uint32_t value) {
  const uint32_t top = each(0x80), values = each(value);
  return {((a.lo | top) - values) ^ top, ((a.hi | top) - values) ^ top};
}

ROCFORGE_HD int level(Int8x8 levels, int i) {
  return static_cast<int8_t>((i < 4 ? levels.lo : levels.hi) >> (8 * (i & 3)));
}

// Defaults of the optional constants of a format.
struct QuantizedFormat {
  static constexpr bool is_plain = false;
  static constexpr bool has_offset = false;   // without one nothing is added, so that -0 stays -0
  static constexpr float level_unit = 1.0f;
};
struct PlainFormat {
  static constexpr bool is_plain = true;
  static constexpr int block_size = 1;
};

// Weights 8 * group .. 8 * group + 7 of one block.
template <class F>
ROCFORGE_HD void decode8(const typename F::Block &block, int group, float out[8]) {
  const Scale scale = F::scale(block, group);
  const auto levels = F::levels8(block, group);
  for (int i = 0; i < 8; ++i) {
    const float product = scale.d * (static_cast<float>(level(levels, i)) * F::level_unit);
    out[i] = F::has_offset ? product + scale.offset : product;
  }
}

// Weights 8 * group .. 8 * group + 7 of a row of blocks, for plain types too.
template <class F>
ROCFORGE_HD void decode8(const typename F::Block *row, int64_t group, float out[8]) {
  if constexpr (F::is_plain) {
    for (int i = 0; i < 8; ++i) out[i] = F::value(row[8 * group + i]);
  } else {
    constexpr int kGroups = F::block_size / 8;
    decode8<F>(row[group / kGroups], static_cast<int>(group % kGroups), out);
  }
}

}  // namespace rocforge::formats
