#include "hip/rotary_embedding.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "hip/head_tensors.h"
#include "hip/stream.h"
#include "ops/rotary_embedding.h"

namespace rocforge::gpu {
namespace {

at::Tensor rotary_embedding(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin, bool interleaved) {
  const RotaryArgs args = check_rotary_embedding(x, cos, sin, interleaved);
  at::Tensor out = at::empty(x.sizes(), x.options());
  if (out.numel() == 0) return out;
  const int64_t head_dim = x.size(3), width = 16 / x.element_size();
  const bool vector = whole_vectors(head_dim, args.pairs, width) && args.angle_step == 1 &&
                      rows_are_aligned(x, width) && rows_are_aligned(args.cos, width) &&
                      rows_are_aligned(args.sin, width);
  const DeviceStream stream(x.device());
  rotate({.x = x.const_data_ptr(),
          .x_strides = {x.stride(0), x.stride(1), x.stride(2)},
          .element_step = x.stride(3),
          .out = out.mutable_data_ptr(),
          .batch = x.size(0),
          .heads = x.size(1),
          .length = x.size(2),
          .head_dim = static_cast<int>(head_dim),
          .pairs = static_cast<int>(args.pairs),
          .angles = {angle_table(args.cos, args.angle_step), angle_table(args.sin, args.angle_step)},
          .cos_strides = {args.cos.stride(0), args.cos.stride(1), args.cos.stride(2)},
          .sin_strides = {args.sin.stride(0), args.sin.stride(1), args.sin.stride(2)},
          .interleaved = interleaved,
          .vector = vector,
          .type = row_type(x.scalar_type())},
         stream.get());
  return out;
}

}  // namespace
}  // namespace rocforge::gpu

TORCH_LIBRARY_IMPL(rocforge, ROCFORGE_GPU_KEY, m) { m.impl("rotary_embedding", rocforge::gpu::rotary_embedding); }
