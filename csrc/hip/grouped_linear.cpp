#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "hip/linear_work.h"
#include "hip/stream.h"

namespace rocforge::gpu {
namespace {

// By kernels that take and give float32.
template <class Launch>
at::Tensor in_float32(const at::Tensor &operand, const at::Tensor &packed, const LinearArgs &args,
                      const at::Tensor &offsets, Launch launch) {
  const at::Tensor rows = operand.to(at::kFloat).contiguous();
  at::Tensor out = at::empty(args.out_shape, rows.options());
  const at::Tensor kept_offsets = offsets.contiguous();
  LinearWork work = linear_work(rows, packed, args, out);
  work.offsets = kept_offsets.const_data_ptr<int32_t>();
  const DeviceStream stream(packed.device());
  launch(work, args.format, stream.get());
  return out.to(operand.scalar_type());
}

at::Tensor grouped_linear(const at::Tensor &input, const at::Tensor &packed, std::string_view format,
                          const at::Tensor &offsets) {
  const LinearArgs args = grouped_linear_args(input, packed, format, offsets, LinearDtypes::kUpToFloat32);
  at::Tensor out = at::empty(args.out_shape, input.options());
  if (out.numel() == 0) return out;
  if (args.in_features == 0) return out.zero_();
  if (formats::kFormats[args.format].block_size == 1) {
    return in_float32(input, packed, args, offsets, launch_grouped_plain);
  }
  const DeviceStream stream(packed.device());
  const at::Tensor rows = aligned_rows(input, args), kept_offsets = offsets.contiguous();
  LinearWork work = linear_work(rows, packed, args, out);
  work.offsets = kept_offsets.const_data_ptr<int32_t>();
  multiply_rows(work, args.format, rows, stream.get());
  return out;
}

at::Tensor grouped_linear_input_gradient(const at::Tensor &grad, const at::Tensor &packed, std::string_view format,
                                         const at::Tensor &offsets) {
  const LinearArgs args =
      grouped_linear_args(grad, packed, format, offsets, LinearDtypes::kUpToFloat32, Direction::kBackward);
  at::Tensor out = at::empty(args.out_shape, grad.options());
  if (out.numel() == 0) return out;
  if (args.out_features == 0) return out.zero_();
  return in_float32(grad, packed, args, offsets, launch_grouped_gradient);
}

}  // namespace
}  // namespace rocforge::gpu

TORCH_LIBRARY_IMPL(rocforge, ROCFORGE_GPU_KEY, m) {
  m.impl("grouped_linear", rocforge::gpu::grouped_linear);
  m.impl("grouped_linear_input_gradient", rocforge::gpu::grouped_linear_input_gradient);
}
