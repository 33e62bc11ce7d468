// The arguments of linear, grouped_linear and of their gradients, checked once for every device.
#pragma once

#include "ops/packed.h"

namespace rocforge {

// Which dtypes a kernel takes beside float32, float16 and bfloat16.
enum class LinearDtypes { kUpToFloat32, kFloat64Too };

struct LinearArgs {
  int format;                      // position in formats::kFormats
  int64_t experts;                 // 1 for linear
  int64_t rows;                    // of the left operand, flattened to [rows, features]
  int64_t in_features;             // weights of a packed row
  int64_t out_features;            // packed rows of an expert
  std::vector<int64_t> out_shape;  // of the result
};

namespace linear_checks {

// The left operand, [..., features]; `name` is what messages call it, `side` names its last dimension.
inline void check_operand(const at::Tensor &operand, const char *name, const char *side, int64_t features,
                          const at::Tensor &packed, LinearDtypes dtypes) {
  const at::ScalarType type = operand.scalar_type();
  const bool narrow = type == at::kFloat || type == at::kHalf || type == at::kBFloat16;
  if (dtypes == LinearDtypes::kFloat64Too) {
    TORCH_CHECK_TYPE(narrow || type == at::kDouble, name, " must be float16, bfloat16, float32 or float64, got ", type);
  } else {
    TORCH_CHECK_TYPE(narrow, name, " must be float16, bfloat16 or float32 on this device, got ", type);
  }
  TORCH_CHECK_VALUE(operand.dim() >= 1, name, " must be [..., ", side, "], got a 0-dimensional tensor");
  TORCH_CHECK_VALUE(operand.size(-1) == features, name, " must be [..., ", side, "] with ", features, " ", side,
                    ", as many as packed has, got ", operand.sizes());
  TORCH_CHECK_VALUE(operand.device() == packed.device(), name, " is on ", operand.device(), " and packed on ",
                    packed.device(), ": both must be on one device");
}

inline std::vector<int64_t> with_last(const at::Tensor &operand, int64_t features) {
  std::vector<int64_t> shape = operand.sizes().vec();
  shape.back() = features;
  return shape;
}

inline int64_t leading(const at::Tensor &operand) {
  return c10::multiply_integers(operand.sizes().slice(0, operand.dim() - 1));
}

// packed [out, row_bytes], or [experts, out, row_bytes]; everything but rows and out_shape.
inline LinearArgs check_weights(const at::Tensor &packed, std::string_view format, bool grouped) {
  const int index = check_format(format);
  const formats::FormatInfo &info = formats::kFormats[index];
  check_packed(packed, info);
  TORCH_CHECK_VALUE(packed.dim() == (grouped ? 3 : 2), "packed weights must be ",
                    grouped ? "[experts, out, row_bytes]" : "[out, row_bytes]", ", got ", packed.sizes());
  return {index, grouped ? packed.size(0) : 1, 0, weights_per_row(packed, info), packed.size(-2), {}};
}

inline void check_offsets(const at::Tensor &offsets, const at::Tensor &packed) {
  TORCH_CHECK_TYPE(offsets.scalar_type() == at::kInt, "offsets must be int32, got ", offsets.scalar_type());
  TORCH_CHECK_VALUE(offsets.dim() == 1 && offsets.size(0) == packed.size(0) + 1, "offsets must be [experts + 1] = [",
                    packed.size(0) + 1, "], got ", offsets.sizes());
  TORCH_CHECK_VALUE(offsets.device() == packed.device(), "offsets are on ", offsets.device(), " and packed on ",
                    packed.device(), ": both must be on one device");
}

// [rows, features] -> [rows, other features].
inline LinearArgs check_grouped(const at::Tensor &operand, const char *name, const at::Tensor &packed,
                                std::string_view format, const at::Tensor &offsets, LinearDtypes dtypes,
                                bool gradient) {
  LinearArgs args = check_weights(packed, format, true);
  check_operand(operand, name, gradient ? "out" : "in", gradient ? args.out_features : args.in_features, packed,
                dtypes);
  TORCH_CHECK_VALUE(operand.dim() == 2, name, " of a grouped linear must be [rows, ", gradient ? "out" : "in",
                    "], got ", operand.sizes());
  check_offsets(offsets, packed);
  args.rows = operand.size(0);
  args.out_shape = with_last(operand, gradient ? args.in_features : args.out_features);
  return args;
}

}  // namespace linear_checks

// input [..., in], packed [out, row_bytes], bias [out] -> [..., out].
inline LinearArgs check_linear(const at::Tensor &input, const at::Tensor &packed, std::string_view format,
                               const std::optional<at::Tensor> &bias, LinearDtypes dtypes) {
  LinearArgs args = linear_checks::check_weights(packed, format, false);
  linear_checks::check_operand(input, "input", "in", args.in_features, packed, dtypes);
  if (bias) {
    TORCH_CHECK_TYPE(bias->scalar_type() == input.scalar_type(), "bias must have input's dtype (", input.scalar_type(),
                     "), got ", bias->scalar_type());
    TORCH_CHECK_VALUE(bias->dim() == 1 && bias->size(0) == args.out_features, "bias must be [out] = [",
                      args.out_features, "], got ", bias->sizes());
    TORCH_CHECK_VALUE(bias->device() == packed.device(), "bias is on ", bias->device(), " and packed on ",
                      packed.device(), ": both must be on one device");
  }
  args.rows = linear_checks::leading(input);
  args.out_shape = linear_checks::with_last(input, args.out_features);
  return args;
}

// grad [..., out], packed [out, row_bytes] -> [..., in].
inline LinearArgs check_linear_input_gradient(const at::Tensor &grad, const at::Tensor &packed, std::string_view format,
                                              LinearDtypes dtypes) {
  LinearArgs args = linear_checks::check_weights(packed, format, false);
  linear_checks::check_operand(grad, "grad", "out", args.out_features, packed, dtypes);
  args.rows = linear_checks::leading(grad);
  args.out_shape = linear_checks::with_last(grad, args.in_features);
  return args;
}

// input [rows, in], packed [experts, out, row_bytes], offsets int32 [experts + 1] -> [rows, out]. The values of
// offsets are not looked at: see check_offset_values.
inline LinearArgs check_grouped_linear(const at::Tensor &input, const at::Tensor &packed, std::string_view format,
                                       const at::Tensor &offsets, LinearDtypes dtypes) {
  return linear_checks::check_grouped(input, "input", packed, format, offsets, dtypes, false);
}

// grad [rows, out], packed [experts, out, row_bytes], offsets int32 [experts + 1] -> [rows, in].
inline LinearArgs check_grouped_linear_input_gradient(const at::Tensor &grad, const at::Tensor &packed,
                                                      std::string_view format, const at::Tensor &offsets,
                                                      LinearDtypes dtypes) {
  return linear_checks::check_grouped(grad, "grad", packed, format, offsets, dtypes, true);
}

// On the CPU only: a GPU would have to wait for the host. There, offsets are clamped to 0 .. rows.
inline void check_offset_values(const int32_t *offsets, const LinearArgs &args) {
  TORCH_CHECK_VALUE(offsets[0] == 0, "offsets must begin with 0, got ", offsets[0]);
  for (int64_t i = 0; i < args.experts; ++i) {
    TORCH_CHECK_VALUE(offsets[i] <= offsets[i + 1], "offsets must ascend, got ", offsets[i], " before ",
                      offsets[i + 1]);
  }
  TORCH_CHECK_VALUE(offsets[args.experts] <= args.rows, "the last offset must be at most the ", args.rows,
                    " rows of input, got ", offsets[args.experts]);
}

// The left operand as contiguous [rows, features].
inline at::Tensor as_rows(const at::Tensor &operand, const LinearArgs &args) {
  return operand.reshape({args.rows, operand.size(-1)}).contiguous();
}

}  // namespace rocforge
