// Arithmetic without matrix cores: a lane takes a whole product of two vectors. In float32, or float64 for float64.
#pragma once

#include <type_traits>

#include "hip/attention_work.h"

namespace rocforge::gpu {

ROCFORGE_DEVICE float tangens_hyperbolicus(float x) { return tanhf(x); }
ROCFORGE_DEVICE double tangens_hyperbolicus(double x) { return tanh(x); }
ROCFORGE_DEVICE float widened(f16 x) { return to_float(x); }
ROCFORGE_DEVICE float widened(bf16 x) { return to_float(x); }
ROCFORGE_DEVICE float widened(float x) { return x; }
ROCFORGE_DEVICE double widened(double x) { return x; }
template <class T> ROCFORGE_DEVICE T narrowed(float x) { return from_float<T>(x); }
template <class T> ROCFORGE_DEVICE T narrowed(double x) { return x; }

template <class T> using Real = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Of the sequences that begin at cuts[0], cuts[1] .., the last that begins at or before `at`.
ROCFORGE_DEVICE int64_t sequence_at(const int32_t *cuts, int64_t sequences, int64_t at) {
  int64_t low = 0, high = sequences;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (cuts[middle] <= at) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// The sequence that row `row` of the tensor belongs to, and the row's number in it.
struct RowPlace {
  Sequence sequence;
  int64_t query;
  ROCFORGE_DEVICE bool in_sequence() const { return query >= 0 && query < sequence.rule.queries; }
};
ROCFORGE_DEVICE RowPlace place_of_row(const Attention &a, int64_t batch, int64_t row) {
  if (!a.cu_seqlens_q) return {padded_sequence(a, batch), row};
  const Sequence sequence = packed_sequence(a, sequence_at(a.cu_seqlens_q, a.sequences, row));
  return {sequence, row - sequence.query_begin};
}

template <class T> ROCFORGE_DEVICE const T *row_of(const Heads &h, int64_t batch, int64_t head, int64_t row) {
  return static_cast<const T *>(h.data) + batch * h.batch + head * h.head + row * h.row;
}

// Four sums: shorter chains of roundings.
template <class R, class Left, class Right> ROCFORGE_DEVICE R dot(const Left *left, const Right *right, int dims) {
  R sums[4] = {};
  int d = 0;
  for (; d + 4 <= dims; d += 4) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[j] += widened(left[d + j]) * widened(right[d + j]);
  }
  for (; d < dims; ++d) sums[0] += widened(left[d]) * widened(right[d]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// `cap_slope`: receives the derivative of the softcap when not null.
template <class R>
ROCFORGE_DEVICE R logit(const Attention &a, R score, R slope, int64_t distance, int64_t mask_at,
                        R *cap_slope = nullptr) {
  R x = score * static_cast<R>(a.logit_scale);
  if (cap_slope) *cap_slope = 1;
  if (a.softcap != 0) {
    const auto cap = static_cast<R>(a.softcap);
    const R capped = tangens_hyperbolicus(x / cap);
    x = cap * capped;
    if (cap_slope) *cap_slope = 1 - capped * capped;
  }
  if (a.alibi.data) x -= slope * static_cast<R>(distance < 0 ? -distance : distance);
  if (a.mask.data) x += number<R>(a.mask.data, a.mask.type, mask_at);
  return x;
}

}  // namespace rocforge::gpu
