#include "ops/embedding.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/cpu/rows.h"

namespace rocforge::cpu {
namespace {

at::Tensor embedding(const at::Tensor &packed, c10::string_view format, const at::Tensor &indices,
                     std::optional<at::ScalarType> dtype) {
  const EmbeddingArgs args = embedding_args(packed, format, indices, dtype);
  at::Tensor out = at::empty(args.out_shape, packed.options().dtype(args.dtype));
  const at::Tensor rows = indices.to(at::kLong).contiguous();
  const auto *const row = rows.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < rows.numel(); ++i) {
    TORCH_CHECK_INDEX(row[i] >= 0 && row[i] < packed.size(0), "embedding index ", row[i], " is out of range for ",
                      packed.size(0), " rows");
  }
  if (out.numel() == 0) return out;
  const auto *const first = packed.const_data_ptr<uint8_t>();
  const int64_t stride = packed.stride(0);
  decode_rows(formats::kFormats[args.format], kernels().decode_row(args.format, out_type(args.dtype)), out,
              rows.numel(), args.out_shape.back(), [&](int64_t i) { return first + row[i] * stride; });
  return out;
}

}  // namespace
}  // namespace rocforge::cpu

TORCH_LIBRARY_IMPL(rocforge, CPU, m) { m.impl("embedding", rocforge::cpu::embedding); }
