#include "ops/linear.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#include "ops/cpu/isa.h"

namespace rocforge::cpu {
namespace {

Element element(const at::Tensor &t) {
  return t.scalar_type() == at::kDouble     ? Element::kDouble
         : t.scalar_type() == at::kHalf     ? Element::kHalf
         : t.scalar_type() == at::kBFloat16 ? Element::kBFloat16
                                            : Element::kFloat;
}

// Everything of the rows of one expert: `packed` [out, row_bytes], left [rows, ...] and result [rows, ...] contiguous.
Linear describe(const at::Tensor &packed, const LinearArgs &args, const at::Tensor &left, const at::Tensor &result) {
  const formats::FormatInfo &info = formats::kFormats[args.format];
  Linear l{};
  l.packed = packed.const_data_ptr<uint8_t>(), l.packed_row = packed.stride(0);
  l.format = args.format, l.block_size = info.block_size, l.block_bytes = info.block_bytes;
  l.decode = kernels().decode_row(args.format, OutType::kFloat);
  l.rows = left.size(0), l.in_features = args.in_features, l.out_features = args.out_features;
  l.type = element(left);
  l.left = static_cast<const char *>(left.const_data_ptr());
  l.result = static_cast<char *>(result.mutable_data_ptr());
  return l;
}

void run(const LinearMethod &method, Linear l) {
  // Multiplications that are worth a thread: some microseconds.
  constexpr int64_t kWorth = 1 << 16;
  const int64_t work = std::max<int64_t>(1, l.rows * l.in_features * l.out_features);
  const auto grain = [&](int64_t items, int64_t of) { return std::max<int64_t>(1, items * kWorth / of); };
  const at::DataPtr prepared = c10::GetCPUAllocator()->allocate(method.prepared_bytes(l));
  l.prepared = prepared.get();
  const int64_t rows = method.prepare_items(l), items = method.items(l);
  const int64_t elements = std::max<int64_t>(1, method.prepared_bytes(l) / 4);
  at::parallel_for(0, rows, grain(rows, elements), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) method.prepare(l, i);
  });
  at::parallel_for(0, items, grain(items, work), [&](int64_t begin, int64_t end) {
    const at::DataPtr scratch = c10::GetCPUAllocator()->allocate(method.scratch_bytes(l));  // 64-byte aligned
    for (int64_t i = begin; i < end; ++i) method.run(l, i, scratch.get());
  });
}

void forward(const Linear &l) {
  const LinearKernels &linear = kernels().linear;
  const bool wide = l.type == Element::kDouble;
  run(!wide && l.rows <= linear.few_rows ? linear.few : wide ? linear.panels_float64 : linear.panels_float32, l);
}

void gradient(const Linear &l) {
  const LinearKernels &linear = kernels().linear;
  run(l.type == Element::kDouble ? linear.gradient_float64 : linear.gradient_float32, l);
}

at::Tensor linear(const at::Tensor &input, const at::Tensor &packed, c10::string_view format,
                  const std::optional<at::Tensor> &bias) {
  const LinearArgs args = linear_args(input, packed, format, bias, LinearDtypes::kFloat64Too);
  at::Tensor out = at::empty(args.out_shape, input.options());
  if (out.numel() == 0) return out;
  const at::Tensor rows = as_rows(input, args), kept = bias ? bias->contiguous() : at::Tensor();
  Linear l = describe(packed, args, rows, out);
  if (bias) l.bias = static_cast<const char *>(kept.const_data_ptr());
  forward(l);
  return out;
}

at::Tensor linear_input_gradient(const at::Tensor &grad, const at::Tensor &packed, c10::string_view format) {
  const LinearArgs args = linear_input_gradient_args(grad, packed, format, LinearDtypes::kFloat64Too);
  at::Tensor out = at::empty(args.out_shape, grad.options());
  if (out.numel() == 0) return out;
  const at::Tensor rows = as_rows(grad, args);
  gradient(describe(packed, args, rows, out));
  return out;
}

// Calls `compute` for each expert that has rows; rows of no expert are 0.
at::Tensor for_each_expert(const at::Tensor &operand, const at::Tensor &packed, const at::Tensor &offsets,
                           const LinearArgs &args, void (*compute)(const Linear &)) {
  const at::Tensor kept = offsets.contiguous();
  const auto *const offset = kept.const_data_ptr<int32_t>();
  check_offset_values(offset, args);
  at::Tensor out = at::empty(args.out_shape, operand.options());
  const int64_t last = offset[args.experts];
  out.narrow(0, last, args.rows - last).zero_();
  if (out.numel() == 0) return out;
  const at::Tensor rows = as_rows(operand, args);
  for (int64_t e = 0; e < args.experts; ++e) {
    const int64_t count = offset[e + 1] - offset[e];
    if (count == 0) continue;
    compute(describe(packed.select(0, e), args, rows.narrow(0, offset[e], count), out.narrow(0, offset[e], count)));
  }
  return out;
}

at::Tensor grouped_linear(const at::Tensor &input, const at::Tensor &packed, c10::string_view format,
                          const at::Tensor &offsets) {
  const LinearArgs args = grouped_linear_args(input, packed, format, offsets, LinearDtypes::kFloat64Too);
  return for_each_expert(input, packed, offsets, args, forward);
}

at::Tensor grouped_linear_input_gradient(const at::Tensor &grad, const at::Tensor &packed, c10::string_view format,
                                         const at::Tensor &offsets) {
  const LinearArgs args =
      grouped_linear_args(grad, packed, format, offsets, LinearDtypes::kFloat64Too, Direction::kBackward);
  return for_each_expert(grad, packed, offsets, args, gradient);
}

}  // namespace
}  // namespace rocforge::cpu

TORCH_LIBRARY_IMPL(rocforge, CPU, m) {
  m.impl("linear", rocforge::cpu::linear);
  m.impl("linear_input_gradient", rocforge::cpu::linear_input_gradient);
  m.impl("grouped_linear", rocforge::cpu::grouped_linear);
  m.impl("grouped_linear_input_gradient", rocforge::cpu::grouped_linear_input_gradient);
}
