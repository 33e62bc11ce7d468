#pragma once

#include "ops/packed.h"

namespace rocforge {

struct DequantizeArgs {
  int format;  // position in formats::kFormats
  at::ScalarType dtype;
  std::vector<int64_t> out_shape;  // packed's, with weights for bytes
};

inline DequantizeArgs check_dequantize(const at::Tensor &packed, std::string_view format,
                                       std::optional<at::ScalarType> dtype) {
  const int index = check_format(format);
  const formats::FormatInfo &info = formats::kFormats[index];
  check_packed(packed, info);
  std::vector<int64_t> out_shape = packed.sizes().vec();
  out_shape.back() = weights_per_row(packed, info);
  return {index, check_out_dtype(dtype), std::move(out_shape)};
}

}  // namespace rocforge
