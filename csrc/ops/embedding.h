#pragma once

#include "ops/packed.h"

namespace rocforge {

struct EmbeddingArgs {
  int format;  // position in formats::kFormats
  at::ScalarType dtype;
  std::vector<int64_t> out_shape;  // [indices..., weights of a row]
};

// Position of the format in formats::kFormats.
inline int check_embedding(const at::Tensor &packed, std::string_view format, const at::Tensor &indices,
                           std::optional<at::ScalarType> dtype) {
  const int index = check_format(format);
  check_packed(packed, formats::kFormats[index]);
  TORCH_CHECK_VALUE(packed.dim() == 2, "an embedding table is packed [rows, row_bytes], got ", packed.sym_sizes());
  TORCH_CHECK_TYPE(indices.scalar_type() == at::kLong || indices.scalar_type() == at::kInt,
                   "indices must be int64 or int32, got ", indices.scalar_type());
  TORCH_CHECK_VALUE(indices.device() == packed.device(), "packed is on ", packed.device(), " and indices on ",
                    indices.device(), ": both must be on one device");
  check_out_dtype(dtype);
  return index;
}

inline EmbeddingArgs embedding_args(const at::Tensor &packed, std::string_view format, const at::Tensor &indices,
                                    std::optional<at::ScalarType> dtype) {
  const int index = check_embedding(packed, format, indices, dtype);
  std::vector<int64_t> out_shape = indices.sizes().vec();
  out_shape.push_back(weights_per_row(packed, formats::kFormats[index]));
  return {index, check_out_dtype(dtype), std::move(out_shape)};
}

}  // namespace rocforge
