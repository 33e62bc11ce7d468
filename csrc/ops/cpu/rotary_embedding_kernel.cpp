#include "ops/rotary_embedding.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

namespace rocforge::cpu {
namespace {

// One row of head_dim elements; strides are in elements, `Acc` is the type the rotation is computed in.
template <class T, class Angle, class Acc>
void rotate_row(const T *x, const Angle *cos, const Angle *sin, T *out, int64_t head_dim, const RotaryArgs &args,
                bool interleaved, int64_t x_stride, int64_t cos_stride, int64_t sin_stride) {
  const int64_t partner = interleaved ? 1 : args.pairs, step = interleaved ? 2 : 1;
  for (int64_t pair = 0; pair < args.pairs; ++pair) {
    const int64_t first = pair * step, second = first + partner, angle = pair * args.angle_step;
    const Acc a = x[first * x_stride], b = x[second * x_stride];
    const Acc c = cos[angle * cos_stride], s = sin[angle * sin_stride];
    out[first] = static_cast<T>(a * c - b * s);
    out[second] = static_cast<T>(b * c + a * s);
  }
  for (int64_t i = 2 * args.pairs; i < head_dim; ++i) out[i] = x[i * x_stride];
}

template <class T, class Angle>
void rotate(const at::Tensor &x, const RotaryArgs &args, bool interleaved, at::Tensor &out) {
  using Acc = std::conditional_t<std::is_same_v<T, double>, double, float>;
  const auto *const x_first = x.const_data_ptr<T>();
  const auto *const cos_first = args.cos.const_data_ptr<Angle>();
  const auto *const sin_first = args.sin.const_data_ptr<Angle>();
  auto *const out_first = out.mutable_data_ptr<T>();
  const int64_t heads = x.size(1), length = x.size(2), head_dim = x.size(3);
  const auto row = [](const at::Tensor &t, int64_t b, int64_t h, int64_t l) {
    return b * t.stride(0) + h * t.stride(1) + l * t.stride(2);
  };
  const int64_t grain = std::max<int64_t>(1, 8192 / head_dim);
  at::parallel_for(0, x.size(0) * heads * length, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / (heads * length), h = i / length % heads, l = i % length;
      rotate_row<T, Angle, Acc>(x_first + row(x, b, h, l), cos_first + row(args.cos, b, h, l),
                                sin_first + row(args.sin, b, h, l), out_first + i * head_dim, head_dim, args,
                                interleaved, x.stride(3), args.cos.stride(3), args.sin.stride(3));
    }
  });
}

at::Tensor rotary_embedding(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin, bool interleaved) {
  const RotaryArgs args = check_rotary_embedding(x, cos, sin, interleaved);
  at::Tensor out = at::empty(x.sizes(), x.options());
  if (out.numel() == 0) return out;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "rotary_embedding", [&] {
    if (cos.scalar_type() == at::kFloat) {
      rotate<scalar_t, float>(x, args, interleaved, out);
    } else {
      rotate<scalar_t, scalar_t>(x, args, interleaved, out);
    }
  });
  return out;
}

}  // namespace
}  // namespace rocforge::cpu

TORCH_LIBRARY_IMPL(rocforge, CPU, m) { m.impl("rotary_embedding", rocforge::cpu::rotary_embedding); }
