// From a tensor [..., row_bytes] to the map that decode_rows takes.
#pragma once

#include <ATen/core/Tensor.h>

#include "hip/decode_rows.h"

namespace rocforge::gpu {

inline OutType out_type(at::ScalarType dtype) {
  return dtype == at::kFloat ? OutType::kFloat : dtype == at::kHalf ? OutType::kHalf : OutType::kBFloat16;
}

// `packed`, or a contiguous copy where it has more dimensions or rows than a map of strides holds.
inline at::Tensor mappable(const at::Tensor &packed) {
  const bool fits = packed.dim() - 1 <= RowMap::kMaxDims && packed.numel() / packed.size(-1) <= INT32_MAX;
  return fits ? packed : packed.contiguous();
}

// `packed` [..., row_bytes] has at least one dimension of rows, and at most RowMap::kMaxDims unless it is contiguous.
inline RowMap row_map(const at::Tensor &packed) {
  RowMap map{};
  map.first = packed.const_data_ptr<uint8_t>();
  if (packed.is_contiguous()) {
    map.dims = 1;
    map.strides[0] = packed.size(-1);
    return map;
  }
  map.dims = static_cast<int>(packed.dim() - 1);
  for (int dim = 0; dim < map.dims; ++dim) {
    map.sizes[dim] = make_divider(packed.size(dim));
    map.strides[dim] = packed.stride(dim);
  }
  return map;
}

}  // namespace rocforge::gpu
