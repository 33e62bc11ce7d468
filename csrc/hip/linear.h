// Products of a few rows with packed weights, as linear and grouped_linear launch them. No torch, no vendor.
#pragma once

#include <cstdint>

namespace rocforge::gpu {

enum class InputType { kFloat, kHalf, kBFloat16 };

// out[r][o] = sum over k of input[r][k] * weight[o][k] (+ bias[o]). Passed to kernels by value.
struct LinearWork {
  const uint8_t *packed;   // [experts, out_features, row_bytes]
  int64_t row_stride;      // in bytes
  int64_t expert_stride;   // in bytes
  const void *input;       // [rows, in_features], contiguous, from a multiple of 16 bytes on
  const void *bias;        // [out_features] of the input's type, or null
  void *out;               // [rows, out_features], contiguous, of the input's type
  const int32_t *offsets;  // [experts + 1], or null: all rows belong to the one expert
  int64_t rows;
  int64_t in_features;
  int64_t out_features;
  int experts;
};

// Several workgroups may share a product, each with a part of in_features: they leave float32 sums in `partial`
// [splits, rows, out_features], which a second kernel adds up, in order.
struct LinearPlan {
  int format;  // position in formats::kFormats: no plain type
  InputType type;
  bool aligned;  // blocks begin at multiples of their own alignment (formats/common.h)
  bool wide;     // see linear_tile
  int splits;
  float *partial;  // null for one split
};

// Tiles of at most `columns` rows of the input. An expert's rows begin a tile of their own, and so do those of none: an
// upper bound, since only the device knows the offsets.
inline int64_t linear_column_tiles(const LinearWork &work, int columns) {
  const int64_t full = (work.rows + columns - 1) / columns;
  if (!work.offsets) return full;
  const int64_t most = full + work.experts + 1;
  return most < work.rows ? most : work.rows;
}

// Shapes of the launch; `partial` is for the caller to fill in when there are splits.
LinearPlan plan_linear_rows(const LinearWork &work, int format, InputType type);
// std::runtime_error when the launch fails.
void launch_linear_rows(const LinearWork &work, const LinearPlan &plan, void *stream);

// csrc/hip/linear_rows_kernel.hip, compiled once for each shard: which formats and alignments it takes.
inline constexpr int kLinearShards = 8;
template <int shard> void linear_rows_shard(const LinearWork &work, const LinearPlan &plan, void *stream);

// grouped_linear on plain types, and the gradient of grouped_linear in its input, in plain float32 arithmetic:
//     out[r][o] = sum over k of input[r][k] * weight[o][k]
//     gradient: out[r][k] = sum over o of input[r][o] * weight[o][k]
// `input` and `out` are float32 here; `work.in_features` and `work.out_features` are those of the weights.
void launch_grouped_plain(const LinearWork &work, int format, void *stream);
void launch_grouped_gradient(const LinearWork &work, int format, void *stream);

}  // namespace rocforge::gpu
