#include "hip/rotary_embedding.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "hip/stream.h"
#include "ops/rotary_embedding.h"

namespace rocforge::gpu {
namespace {

RotaryType rotary_type(at::ScalarType dtype) {
  return dtype == at::kDouble  ? RotaryType::kDouble
         : dtype == at::kFloat ? RotaryType::kFloat
         : dtype == at::kHalf  ? RotaryType::kHalf
                               : RotaryType::kBFloat16;
}

RotaryView view_of(const at::Tensor &t) {
  return {t.const_data_ptr(), {t.stride(0), t.stride(1), t.stride(2), t.stride(3)}};
}

at::Tensor rotary_embedding(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin, bool interleaved) {
  const RotaryArgs args = check_rotary_embedding(x, cos, sin, interleaved);
  at::Tensor out = at::empty(x.sizes(), x.options());
  if (out.numel() == 0) return out;
  const DeviceStream stream(x.device());
  rotate({view_of(x), view_of(args.cos), view_of(args.sin), out.mutable_data_ptr(), x.size(0), x.size(1), x.size(2),
          x.size(3), args.pairs, args.angle_step, interleaved, rotary_type(x.scalar_type()),
          rotary_type(cos.scalar_type())},
         stream.get());
  return out;
}

}  // namespace
}  // namespace rocforge::gpu

TORCH_LIBRARY_IMPL(rocforge, ROCFORGE_GPU_KEY, m) { m.impl("rotary_embedding", rocforge::gpu::rotary_embedding); }
