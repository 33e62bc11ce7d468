#pragma once

#include <ATen/core/Tensor.h>

namespace rocforge {

struct RotaryArgs {
  at::Tensor cos, sin;  // views [B, H, L, width] (a stride of 0 where broadcast)
  int64_t pairs;        // rotated pairs of an element row; the elements after 2 * pairs are copied
  int64_t angle_step;   // entries from one pair's angle to the next: 2 where an interleaved pair has two equal entries
};

// `angles` as a view [B, H, L, width]; x is [B, H, L, head_dim].
inline at::Tensor rotary_angles(const at::Tensor &angles, const at::Tensor &x, const char *name) {
  const bool shared_by_heads = angles.dim() == 2 || angles.dim() == 3;  // [L, width] or [B, L, width]
  TORCH_CHECK_VALUE(shared_by_heads || angles.dim() == 4, name,
                    " must be [length, width], [batch, length, width] or [batch, heads, length, width], got ",
                    angles.sizes());
  const at::Tensor aligned = angles.dim() == 3 ? angles.unsqueeze(1) : angles;
  for (int64_t dim = 1; dim < aligned.dim(); ++dim) {
    const int64_t size = aligned.size(-1 - dim), wanted = x.size(-1 - dim);
    TORCH_CHECK_VALUE(size == wanted || size == 1, name, " of shape ", angles.sizes(),
                      " cannot be broadcast over x of shape ", x.sizes());
  }
  return aligned.expand({x.size(0), x.size(1), x.size(2), angles.size(-1)});
}

// Types and devices of cos and sin, and their width against x [..., head_dim]; leaves RotaryArgs' tensors undefined.
inline RotaryArgs check_angles(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin, bool interleaved) {
  TORCH_CHECK_TYPE(cos.scalar_type() == sin.scalar_type() &&
                       (cos.scalar_type() == at::kFloat || cos.scalar_type() == x.scalar_type()),
                   "cos and sin must both be float32 or of x's dtype (", x.scalar_type(), "), got ", cos.scalar_type(),
                   " and ", sin.scalar_type());
  TORCH_CHECK_VALUE(cos.device() == x.device() && sin.device() == x.device(), "x is on ", x.device(), ", cos on ",
                    cos.device(), " and sin on ", sin.device(), ": all must be on one device");
  TORCH_CHECK_VALUE(cos.sizes() == sin.sizes() && cos.dim() > 0, "cos and sin must have one shape, got ", cos.sizes(),
                    " and ", sin.sizes());
  const int64_t head_dim = x.size(-1), width = cos.size(-1);
  const bool entry_per_element = width == head_dim && width > 0;
  TORCH_CHECK_VALUE(entry_per_element ? width % 2 == 0 : 2 * width <= head_dim,
                    "cos and sin must hold one angle per pair (at most ", head_dim / 2,
                    " of them) or, to rotate the whole of an even head_dim, one entry per element (", head_dim,
                    "), got ", width);
  return {{}, {}, entry_per_element ? width / 2 : width, entry_per_element && interleaved ? 2 : 1};
}

inline RotaryArgs check_rotary_embedding(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin,
                                         bool interleaved) {
  TORCH_CHECK_VALUE(x.dim() == 4, "x must be [batch, heads, length, head_dim], got ", x.sizes());
  TORCH_CHECK_TYPE(x.is_floating_point() && x.element_size() >= 2,
                   "x must be float64, float32, float16 or bfloat16, got ", x.scalar_type());
  RotaryArgs args = check_angles(x, cos, sin, interleaved);
  args.cos = rotary_angles(cos, x, "cos");
  args.sin = rotary_angles(sin, x, "sin");
  return args;
}

}  // namespace rocforge
