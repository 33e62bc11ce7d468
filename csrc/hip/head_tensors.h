// Tensors as head_work.h describes them. For host files of csrc/hip.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "hip/head_work.h"

namespace rocforge::gpu {

inline RowType row_type(at::ScalarType dtype) {
  return dtype == at::kDouble  ? RowType::kDouble
         : dtype == at::kFloat ? RowType::kFloat
         : dtype == at::kHalf  ? RowType::kHalf
                               : RowType::kBFloat16;
}

inline Numbers numbers(const at::Tensor &t) {
  if (!t.defined()) return {nullptr, false};
  return {t.const_data_ptr(), t.scalar_type() == at::kFloat};
}

// Whether rows of t, contiguous themselves, begin at multiples of `elements` elements' bytes, 16 at most.
inline bool rows_are_aligned(const at::Tensor &t, int64_t elements) {
  const int64_t bytes = std::min<int64_t>(16, elements * t.element_size());
  bool aligned = t.stride(-1) == 1 && reinterpret_cast<uintptr_t>(t.const_data_ptr()) % bytes == 0;
  for (int64_t dim = 0; dim < t.dim() - 1; ++dim) {
    aligned = aligned && (t.size(dim) < 2 || t.stride(dim) * t.element_size() % bytes == 0);
  }
  return aligned;
}

// Whether a row's items are whole vectors of `width` elements.
inline bool whole_vectors(int64_t head_dim, int64_t pairs, int64_t width) {
  return pairs % width == 0 && (head_dim - 2 * pairs) % (2 * width) == 0;
}

inline AngleTable angle_table(const at::Tensor &t, int64_t angle_step) {
  return {t.const_data_ptr(), angle_step * t.stride(-1), t.scalar_type() == at::kFloat};
}

}  // namespace rocforge::gpu
