// Rotation of pairs by angles, as rotary_embedding launches it. No torch, no vendor.
#pragma once

#include <cstdint>

namespace rocforge::gpu {

enum class RotaryType { kDouble, kFloat, kHalf, kBFloat16 };

// A tensor [B, H, L, width] of any strides, in elements.
struct RotaryView {
  const void *first;
  int64_t strides[4];
};

struct Rotary {
  RotaryView x, cos, sin;
  void *out;  // [batch, heads, length, head_dim], contiguous
  int64_t batch, heads, length, head_dim;
  int64_t pairs;       // rotated pairs of a row; the elements after them are copied
  int64_t angle_step;  // entries from one pair's angle to the next
  bool interleaved;
  RotaryType type, angle_type;  // angle_type: kFloat or `type`
};

// Queues the work on `stream`. std::runtime_error when the launch fails.
void rotate(const Rotary &work, void *stream);

}  // namespace rocforge::gpu
