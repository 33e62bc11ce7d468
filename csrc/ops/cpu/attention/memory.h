// Between tensors of any element type and the accumulating type: rows in, rows out, and scratch memory.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#if defined(__F16C__)
  #include <immintrin.h>
#endif

#include "formats/q8_0.h"
#include "ops/cpu/attention.h"
#include "ops/cpu/attention/multiply.h"
#include "ops/cpu/half.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

// Hands out 64-byte aligned pieces of scratch memory; from a null start it only counts.
class Arena {
 public:
  explicit Arena(void *start) : start_(static_cast<char *>(start)) {}
  template <class T> T *take(int64_t count) {
    const int64_t at = used_;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return start_ ? reinterpret_cast<T *>(start_ + at) : nullptr;
  }
  int64_t used() const { return used_; }

 private:
  char *start_;
  int64_t used_ = 0;
};

struct Kept {  // an element of a bool mask
  uint8_t value;
};

ROCFORGE_HD float number(float x) { return x; }
ROCFORGE_HD double number(double x) { return x; }
// As an additive mask has it.
ROCFORGE_HD float number(Kept x) { return x.value ? 0.0f : -kInfinity<float>; }

// Calls function(elements) with a pointer of the element's own type.
template <class Function> ROCFORGE_HD void with_type(Element type, const char *data, Function function) {
  switch (type) {
    case Element::kFloat:
      return function(reinterpret_cast<const float *>(data));
    case Element::kDouble:
      return function(reinterpret_cast<const double *>(data));
    case Element::kHalf:
      return function(reinterpret_cast<const HalfBits *>(data));
    case Element::kBFloat16:
      return function(reinterpret_cast<const BFloat16Bits *>(data));
    case Element::kBool:
      return function(reinterpret_cast<const Kept *>(data));
  }
}

template <class Acc> constexpr Element kElement = sizeof(Acc) == 4 ? Element::kFloat : Element::kDouble;

template <class Acc, class Stored> ROCFORGE_HD void to_numbers(const Stored *from, int64_t count, Acc *to) {
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<Acc>(number(from[i]));
}
#if defined(__F16C__)
ROCFORGE_HD void to_numbers(const HalfBits *from, int64_t count, float *to) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    __m128i halfs;
    std::memcpy(&halfs, from + i, sizeof halfs);
    const __m256 floats = _mm256_cvtph_ps(halfs);
    std::memcpy(to + i, &floats, sizeof floats);
  }
  for (; i < count; ++i) to[i] = number(from[i]);
}
#endif

// `width` elements with unit stride, zeros up to `padded`.
template <class Acc> void load_row(Element type, const char *row, int64_t width, int64_t padded, Acc *out) {
  with_type(type, row, [&](const auto *elements) { to_numbers(elements, width, out); });
  for (int64_t i = width; i < padded; ++i) out[i] = 0;
}

// The same, down a column of a matrix whose rows are `step` apart.
template <class Acc> void load_row_transposed(Element type, const char *row, int64_t width, Acc *out, int64_t step) {
  with_type(type, row, [&](const auto *elements) {
    for (int64_t i = 0; i < width; ++i) out[i * step] = static_cast<Acc>(number(elements[i]));
  });
}

template <class Acc> void store_row(const Acc *values, Element type, char *row, int64_t width) {
  if (type == kElement<Acc>) {
    std::memcpy(row, values, width * sizeof(Acc));
    return;
  }
  switch (type) {
    case Element::kHalf:
      return round_row(values, width, reinterpret_cast<HalfBits *>(row));
    case Element::kBFloat16:
      return round_row(values, width, reinterpret_cast<BFloat16Bits *>(row));
    default:  // a float32 mask's gradient beside float64 tensors
      for (int64_t i = 0; i < width; ++i) reinterpret_cast<float *>(row)[i] = static_cast<float>(values[i]);
  }
}

// A tile of rows in the accumulating type.
template <class Acc> struct Matrix {
  const Acc *data;
  int64_t row;  // stride

  Left<Acc> rows() const { return {data, row, 1}; }
  Left<Acc> columns() const { return {data, 1, row}; }  // transposed
  Right<Acc> right() const { return {data, row}; }
};

// A row of Q8_0 blocks, each value rounded to Bits, or not where that is float; zeros up to `padded`.
template <class Bits, class Acc> void load_blocks(const char *row, int64_t width, int64_t padded, Acc *out) {
  constexpr int kSize = formats::Q8_0::block_size;
  const auto *const blocks = reinterpret_cast<const formats::Q8_0::Block *>(row);
  for (int64_t i = 0; i < width; i += kSize) {
    float values[kSize];
    for (int j = 0; j < kSize; j += 8) formats::decode8<formats::Q8_0>(blocks[i / kSize], j / 8, values + j);
    if constexpr (sizeof(Bits) == sizeof(float)) {
      to_numbers(values, kSize, out + i);
    } else {
      Bits rounded[kSize];
      round_row(values, kSize, rounded);
      to_numbers(rounded, kSize, out + i);
    }
  }
  for (int64_t i = width; i < padded; ++i) out[i] = 0;
}

// The same, rounded to `type`.
template <class Acc> void load_blocks(Element type, const char *row, int64_t width, int64_t padded, Acc *out) {
  if (type == Element::kHalf) return load_blocks<HalfBits>(row, width, padded, out);
  if (type == Element::kBFloat16) return load_blocks<BFloat16Bits>(row, width, padded, out);
  load_blocks<float>(row, width, padded, out);
}

// Rows begin .. begin + count of one head: where they are when they need no conversion and no padding to whole vectors
// (`padded` > width), else copied to `scratch`.
template <class Acc>
Matrix<Acc> load_rows(const View &view, int64_t batch, int64_t head, int64_t begin, int64_t count, int64_t width,
                      int64_t padded, Acc *scratch) {
  if (view.type == kElement<Acc> && padded == width && !view.blocks) {
    return {reinterpret_cast<const Acc *>(view.at(batch, head, begin)), view.row};
  }
  for (int64_t i = 0; i < count; ++i) {
    const char *const row = view.at(batch, head, begin + i);
    if (view.blocks) {
      load_blocks(view.type, row, width, padded, scratch + i * padded);
    } else {
      load_row(view.type, row, width, padded, scratch + i * padded);
    }
  }
  return {scratch, padded};
}

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
