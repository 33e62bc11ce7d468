// Rotation of pairs by angles, as rotary_embedding launches it. No torch, no vendor.
#pragma once

#include <cstdint>

#include "hip/head_work.h"

namespace rocforge::gpu {

struct Rotary {
  const void *x;         // [batch, heads, length, head_dim]
  int64_t x_strides[3];  // batch, heads, length; in elements, as all strides here
  int64_t element_step;  // x's last stride
  void *out;             // the same shape, contiguous
  int64_t batch, heads, length;
  int head_dim, pairs;  // the elements after 2 * pairs are copied
  Angles angles;
  int64_t cos_strides[3], sin_strides[3];  // batch, heads, length
  bool interleaved;
  bool vector;  // every 16 bytes of a row, the halves of every pair and its angles begin at a multiple of 16
  RowType type;
};

// Queues the work on `stream`. std::runtime_error when the launch fails.
void rotate(const Rotary &work, void *stream);

}  // namespace rocforge::gpu
