// The arguments of linear, grouped_linear and of their gradients, checked once for every device.
#pragma once

#include "ops/packed.h"

namespace rocforge {

// Which dtypes a kernel takes beside float32, float16 and bfloat16.
enum class LinearDtypes { kUpToFloat32, kFloat64Too };

enum class Direction { kForward, kBackward };

struct LinearArgs {
  int format;                      // position in formats::kFormats
  int64_t experts;                 // 1 for linear
  int64_t rows;                    // of the left operand, flattened to [rows, features]
  int64_t in_features;             // weights of a packed row
  int64_t out_features;            // packed rows of an expert
  std::vector<int64_t> out_shape;  // of the result
};

namespace linear_checks {

// packed [out, row_bytes], or [experts, out, row_bytes]; position of the format in formats::kFormats.
inline int check_weights(const at::Tensor &packed, std::string_view format, bool grouped) {
  const int index = check_format(format);
  check_packed(packed, formats::kFormats[index]);
  TORCH_CHECK_VALUE(packed.dim() == (grouped ? 3 : 2), "packed weights must be ",
                    grouped ? "[experts, out, row_bytes]" : "[out, row_bytes]", ", got ", packed.sym_sizes());
  return index;
}

// The left operand, [..., features]; `name` is what messages call it.
inline void check_operand(const at::Tensor &operand, const char *name, Direction direction, const at::Tensor &packed,
                          int format, LinearDtypes dtypes) {
  const bool forward = direction == Direction::kForward;
  const char *const side = forward ? "in" : "out";
  const c10::SymInt features = forward ? sym_weights_per_row(packed, formats::kFormats[format]) : packed.sym_size(-2);
  const at::ScalarType type = operand.scalar_type();
  const bool narrow = type == at::kFloat || type == at::kHalf || type == at::kBFloat16;
  if (dtypes == LinearDtypes::kFloat64Too) {
    TORCH_CHECK_TYPE(narrow || type == at::kDouble, name, " must be float16, bfloat16, float32 or float64, got ", type);
  } else {
    TORCH_CHECK_TYPE(narrow, name, " must be float16, bfloat16 or float32 on this device, got ", type);
  }
  TORCH_CHECK_VALUE(operand.dim() >= 1, name, " must be [..., ", side, "], got a 0-dimensional tensor");
  TORCH_CHECK_VALUE(equal(operand.sym_size(-1), features), name, " must be [..., ", side, "] with ", features, " ",
                    side, ", as many as packed has, got ", operand.sym_sizes());
  TORCH_CHECK_VALUE(operand.device() == packed.device(), name, " is on ", operand.device(), " and packed on ",
                    packed.device(), ": both must be on one device");
}

inline void check_offsets(const at::Tensor &offsets, const at::Tensor &packed) {
  TORCH_CHECK_TYPE(offsets.scalar_type() == at::kInt, "offsets must be int32, got ", offsets.scalar_type());
  const c10::SymInt wanted = packed.sym_size(0) + 1;
  TORCH_CHECK_VALUE(offsets.dim() == 1 && equal(offsets.sym_size(0), wanted), "offsets must be [experts + 1] = [",
                    wanted, "], got ", offsets.sym_sizes());
  TORCH_CHECK_VALUE(offsets.device() == packed.device(), "offsets are on ", offsets.device(), " and packed on ",
                    packed.device(), ": both must be on one device");
}

// What kernels are given, once everything is checked.
inline LinearArgs arguments(const at::Tensor &operand, const at::Tensor &packed, int format, Direction direction) {
  const int64_t in = weights_per_row(packed, formats::kFormats[format]), out = packed.size(-2);
  std::vector<int64_t> shape = operand.sizes().vec();
  shape.back() = direction == Direction::kForward ? out : in;
  const int64_t rows = c10::multiply_integers(operand.sizes().slice(0, operand.dim() - 1));
  return {format, packed.dim() == 3 ? packed.size(0) : 1, rows, in, out, std::move(shape)};
}

}  // namespace linear_checks

// input [..., in], packed [out, row_bytes], bias [out]; position of the format in formats::kFormats.
inline int check_linear(const at::Tensor &input, const at::Tensor &packed, std::string_view format,
                        const std::optional<at::Tensor> &bias, LinearDtypes dtypes) {
  const int index = linear_checks::check_weights(packed, format, false);
  linear_checks::check_operand(input, "input", Direction::kForward, packed, index, dtypes);
  if (bias) {
    TORCH_CHECK_TYPE(bias->scalar_type() == input.scalar_type(), "bias must have input's dtype (", input.scalar_type(),
                     "), got ", bias->scalar_type());
    TORCH_CHECK_VALUE(bias->dim() == 1 && equal(bias->sym_size(0), packed.sym_size(0)), "bias must be [out] = [",
                      packed.sym_size(0), "], got ", bias->sym_sizes());
    TORCH_CHECK_VALUE(bias->device() == packed.device(), "bias is on ", bias->device(), " and packed on ",
                      packed.device(), ": both must be on one device");
  }
  return index;
}

// operand [rows, in] or, backward, [rows, out]; packed [experts, out, row_bytes]; offsets int32 [experts + 1], whose
// values are not looked at (check_offset_values).
inline int check_grouped_linear(const at::Tensor &operand, const at::Tensor &packed, std::string_view format,
                                const at::Tensor &offsets, LinearDtypes dtypes,
                                Direction direction = Direction::kForward) {
  const bool forward = direction == Direction::kForward;
  const char *const name = forward ? "input" : "grad";
  const int index = linear_checks::check_weights(packed, format, true);
  linear_checks::check_operand(operand, name, direction, packed, index, dtypes);
  TORCH_CHECK_VALUE(operand.dim() == 2, name, " of a grouped linear must be [rows, ", forward ? "in" : "out", "], got ",
                    operand.sym_sizes());
  linear_checks::check_offsets(offsets, packed);
  return index;
}

// -> [..., out].
inline LinearArgs linear_args(const at::Tensor &input, const at::Tensor &packed, std::string_view format,
                              const std::optional<at::Tensor> &bias, LinearDtypes dtypes) {
  const int index = check_linear(input, packed, format, bias, dtypes);
  return linear_checks::arguments(input, packed, index, Direction::kForward);
}

// grad [..., out], packed [out, row_bytes] -> [..., in].
inline LinearArgs linear_input_gradient_args(const at::Tensor &grad, const at::Tensor &packed, std::string_view format,
                                             LinearDtypes dtypes) {
  const int index = linear_checks::check_weights(packed, format, false);
  linear_checks::check_operand(grad, "grad", Direction::kBackward, packed, index, dtypes);
  return linear_checks::arguments(grad, packed, index, Direction::kBackward);
}

// [rows, in] -> [rows, out], or backward [rows, out] -> [rows, in].
inline LinearArgs grouped_linear_args(const at::Tensor &operand, const at::Tensor &packed, std::string_view format,
                                      const at::Tensor &offsets, LinearDtypes dtypes,
                                      Direction direction = Direction::kForward) {
  const int index = check_grouped_linear(operand, packed, format, offsets, dtypes, direction);
  return linear_checks::arguments(operand, packed, index, direction);
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
