// What every operator on packed weights checks first.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

#include "formats/registry.h"
#include "ops/sizes.h"

namespace rocforge {

// Position in formats::kFormats of the format of that exact name; ValueError with the near names otherwise.
int check_format(std::string_view name);

// `packed` as rows of whole blocks: uint8 [..., row_bytes], last dimension contiguous. ValueError / TypeError
// otherwise.
void check_packed(const at::Tensor &packed, const formats::FormatInfo &format);

// float32 when absent; ValueError unless float32, float16 or bfloat16.
at::ScalarType check_out_dtype(std::optional<at::ScalarType> dtype);

inline c10::SymInt sym_weights_per_row(const at::Tensor &packed, const formats::FormatInfo &format) {
  return packed.sym_size(-1) / format.block_bytes * format.block_size;
}
inline int64_t weights_per_row(const at::Tensor &packed, const formats::FormatInfo &format) {
  return packed.size(-1) / format.block_bytes * format.block_size;
}

}  // namespace rocforge
