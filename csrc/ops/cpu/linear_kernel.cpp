#include "ops/linear.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "ops/cpu/isa.h"

namespace rocforge::cpu {
namespace {

// One expert's packed rows [out, row_bytes].
struct Weights {
  const uint8_t *first;
  int64_t row_stride;  // bytes
  int format;
  at::ScalarType accumulator;

  // Weights `begin` .. `end` of packed rows `row` .. `row + count`, [count, end - begin].
  at::Tensor panel(int64_t row, int64_t count, int64_t begin, int64_t end) const {
    const formats::FormatInfo &info = formats::kFormats[format];
    at::Tensor out = at::empty({count, end - begin}, at::kFloat);
    const DecodeRow decode = kernels().decode_row(format, OutType::kFloat);
    const int64_t first_byte = begin / info.block_size * info.block_bytes;
    for (int64_t i = 0; i < count; ++i) {
      decode(first + (row + i) * row_stride + first_byte, out.mutable_data_ptr<float>() + i * (end - begin),
             end - begin);
    }
    return out.to(accumulator);
  }
};

at::ScalarType accumulator(const at::Tensor &t) { return t.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

// out [rows, out features] = input [rows, in features] x weights^T; both of the accumulating type.
void multiply(const at::Tensor &input, const Weights &weights, at::Tensor out) {
  constexpr int64_t kPanel = 16;  // packed rows
  const int64_t features = out.size(1), panels = (features + kPanel - 1) / kPanel;
  at::parallel_for(0, panels, 1, [&](int64_t first, int64_t last) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    for (int64_t i = first; i < last; ++i) {
      const int64_t row = i * kPanel, count = std::min(kPanel, features - row);
      out.narrow(1, row, count).copy_(at::mm(input, weights.panel(row, count, 0, input.size(1)).t()));
    }
  });
}

// out [rows, in features] = grad [rows, out features] x weights.
void multiply_transposed(const at::Tensor &grad, const Weights &weights, at::Tensor out) {
  constexpr int64_t kPanel = 64, kColumns = 1024;
  const int64_t features = out.size(1), pieces = (features + kColumns - 1) / kColumns;
  at::parallel_for(0, pieces, 1, [&](int64_t first, int64_t last) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    for (int64_t i = first; i < last; ++i) {
      const int64_t begin = i * kColumns, end = std::min(begin + kColumns, features);
      at::Tensor sum = at::zeros({grad.size(0), end - begin}, grad.options());
      for (int64_t row = 0; row < grad.size(1); row += kPanel) {
        const int64_t count = std::min(kPanel, grad.size(1) - row);
        sum = at::addmm(sum, grad.narrow(1, row, count), weights.panel(row, count, begin, end));
      }
      out.narrow(1, begin, end - begin).copy_(sum);
    }
  });
}

at::Tensor linear(const at::Tensor &input, const at::Tensor &packed, c10::string_view format,
                  const std::optional<at::Tensor> &bias) {
  const LinearArgs args = check_linear(input, packed, format, bias, LinearDtypes::kFloat64Too);
  const at::ScalarType wide = accumulator(input);
  at::Tensor out = at::zeros({args.rows, args.out_features}, input.options().dtype(wide));
  if (args.rows && args.in_features) {
    multiply(as_rows(input, args).to(wide), {packed.const_data_ptr<uint8_t>(), packed.stride(0), args.format, wide},
             out);
  }
  if (bias) out += bias->to(wide);
  return out.to(input.scalar_type()).view(args.out_shape);
}

at::Tensor linear_input_gradient(const at::Tensor &grad, const at::Tensor &packed, c10::string_view format) {
  const LinearArgs args = check_linear_input_gradient(grad, packed, format, LinearDtypes::kFloat64Too);
  const at::ScalarType wide = accumulator(grad);
  at::Tensor out = at::zeros({args.rows, args.in_features}, grad.options().dtype(wide));
  if (args.rows && args.out_features) {
    multiply_transposed(as_rows(grad, args).to(wide),
                        {packed.const_data_ptr<uint8_t>(), packed.stride(0), args.format, wide}, out);
  }
  return out.to(grad.scalar_type()).view(args.out_shape);
}

// Calls step(rows of the operand, weights, rows of the result) for every expert that has rows.
template <class Step>
at::Tensor for_each_expert(const at::Tensor &operand, const at::Tensor &packed, const at::Tensor &offsets,
                           const LinearArgs &args, Step step) {
  const at::Tensor kept = offsets.contiguous();
  const auto *const offset = kept.const_data_ptr<int32_t>();
  check_offset_values(offset, args);
  const at::ScalarType wide = accumulator(operand);
  const at::Tensor rows = as_rows(operand, args).to(wide);
  at::Tensor out = at::zeros(args.out_shape, operand.options().dtype(wide));
  if (out.numel() == 0 || rows.numel() == 0) return out.to(operand.scalar_type());
  for (int64_t e = 0; e < args.experts; ++e) {
    const int64_t count = offset[e + 1] - offset[e];
    if (count == 0) continue;
    const Weights weights{packed.const_data_ptr<uint8_t>() + e * packed.stride(0), packed.stride(1), args.format, wide};
    step(rows.narrow(0, offset[e], count), weights, out.narrow(0, offset[e], count));
  }
  return out.to(operand.scalar_type());
}

at::Tensor grouped_linear(const at::Tensor &input, const at::Tensor &packed, c10::string_view format,
                          const at::Tensor &offsets) {
  const LinearArgs args = check_grouped_linear(input, packed, format, offsets, LinearDtypes::kFloat64Too);
  return for_each_expert(input, packed, offsets, args, multiply);
}

at::Tensor grouped_linear_input_gradient(const at::Tensor &grad, const at::Tensor &packed, c10::string_view format,
                                         const at::Tensor &offsets) {
  const LinearArgs args = check_grouped_linear_input_gradient(grad, packed, format, offsets, LinearDtypes::kFloat64Too);
  return for_each_expert(grad, packed, offsets, args, multiply_transposed);
}

}  // namespace
}  // namespace rocforge::cpu

TORCH_LIBRARY_IMPL(rocforge, CPU, m) {
  m.impl("linear", rocforge::cpu::linear);
  m.impl("linear_input_gradient", rocforge::cpu::linear_input_gradient);
  m.impl("grouped_linear", rocforge::cpu::grouped_linear);
  m.impl("grouped_linear_input_gradient", rocforge::cpu::grouped_linear_input_gradient);
}
