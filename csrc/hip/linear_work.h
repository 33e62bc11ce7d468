// From tensors to the work of linear's kernels.
#pragma once

#include <ATen/ops/empty.h>

#include "hip/linear.h"
#include "ops/linear.h"

namespace rocforge::gpu {

inline InputType input_type(at::ScalarType type) {
  return type == at::kFloat ? InputType::kFloat : type == at::kHalf ? InputType::kHalf : InputType::kBFloat16;
}

// The left operand as contiguous [rows, features] that begin at a multiple of 16 bytes.
inline at::Tensor aligned_rows(const at::Tensor &operand, const LinearArgs &args) {
  const at::Tensor rows = as_rows(operand, args);
  return reinterpret_cast<uintptr_t>(rows.const_data_ptr()) % 16 == 0 ? rows : rows.clone();
}

// `rows` and `out` are contiguous; packed is [out, row_bytes] or [experts, out, row_bytes].
inline LinearWork linear_work(const at::Tensor &rows, const at::Tensor &packed, const LinearArgs &args,
                              at::Tensor &out) {
  LinearWork work{};
  work.packed = packed.const_data_ptr<uint8_t>();
  work.row_stride = packed.stride(-2);
  work.expert_stride = packed.dim() == 3 ? packed.stride(0) : 0;
  work.input = rows.const_data_ptr();
  work.out = out.mutable_data_ptr();
  work.rows = args.rows, work.in_features = args.in_features, work.out_features = args.out_features;
  work.experts = static_cast<int>(args.experts);
  return work;
}

// By the packed weights as they are: a format of blocks.
inline void multiply_rows(const LinearWork &work, int format, const at::Tensor &rows, void *stream) {
  LinearPlan plan = plan_linear_rows(work, format, input_type(rows.scalar_type()));
  at::Tensor partial;
  if (plan.splits > 1) {
    partial = at::empty({plan.splits, work.rows, work.out_features}, rows.options().dtype(at::kFloat));
    plan.partial = partial.mutable_data_ptr<float>();
  }
  launch_linear_rows(work, plan, stream);
}

}  // namespace rocforge::gpu
