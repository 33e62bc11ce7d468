#include "ops/linear.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>

#include <algorithm>

#include "hip/linear.h"
#include "hip/linear_work.h"
#include "hip/row_map.h"
#include "hip/stream.h"

namespace rocforge::gpu {
namespace {

// Up to this many rows the packed weights are multiplied as they are, 16 rows or fewer at a time; above, panels of them
// are decoded for PyTorch's matrix product.
constexpr int64_t kMostRowsPacked = 32;
// Weights of a panel: at most 64 MiB of float32, 32 MiB of 16-bit values.
constexpr int64_t kPanelWeights = int64_t{16} << 20;
// Panels begin at multiples of this: matrix products are slow on operands that do not begin at 16 bytes.
constexpr int64_t kPanelStep = 256;

// How long a panel of kPanelWeights is in one dimension when it has `other` in the other one.
int64_t panel_length(int64_t other, int64_t whole) {
  const int64_t steps = std::max<int64_t>(kPanelWeights / other / kPanelStep, 1);
  return std::min(steps * kPanelStep, whole);
}

// Whether panels may be of the operand's dtype: rounding blocks' weights to half precision costs no more than PyTorch's
// own product of such weights, but plain types may be far wider.
bool keeps_weights(const formats::FormatInfo &format, at::ScalarType type) {
  return format.block_size > 1 || type == at::kFloat || format.name == "I8" ||
         format.name == (type == at::kHalf ? "F16" : "BF16");
}

// Weights [first, first + count) of packed rows, as decode_rows takes them.
DecodeRows panel_of(const at::Tensor &packed, const formats::FormatInfo &format, int64_t first_row, int64_t rows,
                    int64_t first, int64_t count, at::Tensor &panel) {
  RowMap map{};
  map.dims = 1;
  map.strides[0] = packed.stride(0);
  map.first =
      packed.const_data_ptr<uint8_t>() + first_row * packed.stride(0) + first / format.block_size * format.block_bytes;
  return {map, panel.mutable_data_ptr(), rows, count};
}

// out [rows, out] = input [rows, in] W^T, by panels of whole packed rows.
void multiply_by_panels(const at::Tensor &input, const at::Tensor &packed, const LinearArgs &args,
                        const std::optional<at::Tensor> &bias, at::Tensor &out, void *stream) {
  const formats::FormatInfo &format = formats::kFormats[args.format];
  const int64_t panel_rows = panel_length(args.in_features, args.out_features);
  at::Tensor panel = at::empty({panel_rows, args.in_features}, input.options());
  for (int64_t first = 0; first < args.out_features; first += panel_rows) {
    const int64_t rows = std::min(panel_rows, args.out_features - first);
    decode_rows(args.format, out_type(input.scalar_type()),
                panel_of(packed, format, first, rows, 0, args.in_features, panel), stream);
    at::Tensor part = out.narrow(1, first, rows);
    const at::Tensor weights = panel.narrow(0, 0, rows).t();
    if (bias) {
      at::addmm_out(part, bias->narrow(0, first, rows), input, weights);
    } else {
      at::mm_out(part, input, weights);
    }
  }
}

// out [rows, in] = grad [rows, out] W, by panels of whole blocks of every packed row.
void gradient_by_panels(const at::Tensor &grad, const at::Tensor &packed, const LinearArgs &args, at::Tensor &out,
                        void *stream) {
  const formats::FormatInfo &format = formats::kFormats[args.format];
  const int64_t panel_weights = panel_length(args.out_features, args.in_features);
  at::Tensor panel = at::empty({args.out_features * panel_weights}, grad.options());
  for (int64_t first = 0; first < args.in_features; first += panel_weights) {
    const int64_t count = std::min(panel_weights, args.in_features - first);
    decode_rows(args.format, out_type(grad.scalar_type()),
                panel_of(packed, format, 0, args.out_features, first, count, panel), stream);
    at::Tensor part = out.narrow(1, first, count);
    at::mm_out(part, grad, panel.narrow(0, 0, args.out_features * count).view({args.out_features, count}));
  }
}

at::Tensor linear(const at::Tensor &input, const at::Tensor &packed, std::string_view format,
                  const std::optional<at::Tensor> &bias) {
  const LinearArgs args = linear_args(input, packed, format, bias, LinearDtypes::kUpToFloat32);
  if (!keeps_weights(formats::kFormats[args.format], input.scalar_type())) {
    const auto wide_bias = bias ? std::optional(bias->to(at::kFloat)) : std::nullopt;
    return linear(input.to(at::kFloat), packed, format, wide_bias).to(input.scalar_type());
  }
  at::Tensor out = at::empty({args.rows, args.out_features}, input.options());
  if (out.numel() == 0) return out.view(args.out_shape);
  const DeviceStream stream(packed.device());
  if (args.in_features == 0) {
    out.zero_();
    return (bias ? out.add_(*bias) : out).view(args.out_shape);
  }
  if (formats::kFormats[args.format].block_size > 1 && args.rows <= kMostRowsPacked) {
    const at::Tensor rows = aligned_rows(input, args);
    const at::Tensor kept_bias = bias ? bias->contiguous() : at::Tensor();
    LinearWork work = linear_work(rows, packed, args, out);
    work.bias = bias ? kept_bias.const_data_ptr() : nullptr;
    multiply_rows(work, args.format, rows, stream.get());
  } else {
    multiply_by_panels(as_rows(input, args), packed, args, bias, out, stream.get());
  }
  return out.view(args.out_shape);
}

at::Tensor linear_input_gradient(const at::Tensor &grad, const at::Tensor &packed, std::string_view format) {
  const LinearArgs args = linear_input_gradient_args(grad, packed, format, LinearDtypes::kUpToFloat32);
  if (!keeps_weights(formats::kFormats[args.format], grad.scalar_type())) {
    return linear_input_gradient(grad.to(at::kFloat), packed, format).to(grad.scalar_type());
  }
  at::Tensor out = at::empty({args.rows, args.in_features}, grad.options());
  if (out.numel() == 0) return out.view(args.out_shape);
  const DeviceStream stream(packed.device());
  if (args.out_features == 0) return out.zero_().view(args.out_shape);
  gradient_by_panels(as_rows(grad, args), packed, args, out, stream.get());
  return out.view(args.out_shape);
}

}  // namespace
}  // namespace rocforge::gpu

TORCH_LIBRARY_IMPL(rocforge, ROCFORGE_GPU_KEY, m) {
  m.impl("linear", rocforge::gpu::linear);
  m.impl("linear_input_gradient", rocforge::gpu::linear_input_gradient);
}
