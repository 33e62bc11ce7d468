// Rows of packed blocks to contiguous floats: what dequantize and embedding launch. No torch, no vendor.
#pragma once

#include <cstdint>

#include "hip/divider.h"

namespace rocforge::gpu {

enum class OutType { kFloat, kHalf, kBFloat16 };

// Where the packed bytes of each row begin. Passed to kernels by value.
struct RowMap {
  static constexpr int kMaxDims = 6;
  const uint8_t *first;
  const void *indices;        // when not null: row i is row indices[i] of the table
  bool wide_indices;          // int64 rather than int32
  int64_t table_rows;         // at least 1; an index outside of [0, table_rows) gives a row of NaN
  int dims;                   // of the rows, outermost first; above one, the rows are fewer than 2^31
  Divider sizes[kMaxDims];    // row i is i in mixed radix: the last size divides first, sizes[0] is not used
  int64_t strides[kMaxDims];  // in bytes
};

struct DecodeRows {
  RowMap map;
  void *out;  // [rows, weights], contiguous
  int64_t rows;
  int64_t weights;  // a row's, whole blocks
};

// csrc/hip/decode_rows_kernel.hip, compiled once for each shard: which formats and alignments it takes.
inline constexpr int kDecodeShards = 8;
template <int shard> void decode_shard(int format, OutType out_type, const DecodeRows &work, void *stream);

// Queues the work on `stream`. `format`: position in formats::kFormats. std::runtime_error when the launch fails.
void decode_rows(int format, OutType out_type, const DecodeRows &work, void *stream);

}  // namespace rocforge::gpu
