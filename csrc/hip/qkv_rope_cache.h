// What qkv_rope_cache launches. No torch, no vendor.
#pragma once

#include <cstdint>

#include "hip/head_work.h"

namespace rocforge::gpu {

// The query, key or value heads of the projection, and where they go. Strides in elements.
struct QkvPart {
  const void *x;         // [batch, length, heads, head_dim]
  void *out;             // [batch, heads, length or capacity, head_dim]
  int64_t x_strides[3];  // batch, length, heads
  int64_t out_strides[3];
  int heads, head_dim;
  int pairs;     // of a row that rotate
  bool cached;   // to the token's slot, otherwise to its own place
  Numbers bias;  // [heads, head_dim]
  Numbers norm;  // [head_dim]
};

// A position for each token: values[batch, token] + token * step.
struct PositionTable {
  const void *values;
  int64_t strides[2];
  int64_t step;
  bool wide;  // int64, otherwise int32
};

struct QkvRopeCache {
  QkvPart parts[3];
  int64_t batch, length;
  PositionTable slots;  // of the caches
  int64_t capacity;
  bool ring;  // position p is slot p % capacity
  double eps;
  Angles angles;                           // rows of batch and token, or of `rows`
  int64_t cos_strides[2], sin_strides[2];  // batch and token; with `rows` the second is a row's
  PositionTable rows;                      // values nullptr: cos and sin are no tables
  int64_t table_rows;
  bool interleaved;
  bool vector;  // every 16 bytes of a row, the halves of every pair and its angles begin at a multiple of 16
  RowType type;
};

// Queues the work on `stream`. std::runtime_error when the launch fails.
void place_heads(const QkvRopeCache &work, void *stream);

}  // namespace rocforge::gpu
