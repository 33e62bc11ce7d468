#pragma once

#include "ops/packed.h"

namespace rocforge {

struct DequantizeArgs {
  int format;  // position in formats::kFormats
  at::ScalarType dtype;
  std::vector<int64_t> out_shape;  // packed's, with weights for bytes
};

// Position of the format in formats::kFormats.
inline int check_dequantize(const at::Tensor &packed, std::string_view format, std::optional<at::ScalarType> dtype) {
  const int index = check_format(format);
  check_packed(packed, formats::kFormats[index]);
  check_out_dtype(dtype);
  return index;
}

inline DequantizeArgs dequantize_args(const at::Tensor &packed, std::string_view format,
                                      std::optional<at::ScalarType> dtype) {
  const int index = check_dequantize(packed, format, dtype);
  std::vector<int64_t> out_shape = packed.sizes().vec();
  out_shape.back() = weights_per_row(packed, formats::kFormats[index]);
  return {index, check_out_dtype(dtype), std::move(out_shape)};
}

}  // namespace rocforge
