#include "ops/dequantize.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/cpu/rows.h"

namespace rocforge::cpu {
namespace {

// Byte offset of row `row` of a tensor [..., row_bytes] of any strides.
int64_t row_offset(const at::Tensor &packed, int64_t row) {
  int64_t offset = 0;
  for (int64_t dim = packed.dim() - 2; dim >= 0; --dim) {
    offset += row % packed.size(dim) * packed.stride(dim);
    row /= packed.size(dim);
  }
  return offset;
}

at::Tensor dequantize(const at::Tensor &packed, c10::string_view format, std::optional<at::ScalarType> dtype) {
  const DequantizeArgs args = dequantize_args(packed, format, dtype);
  const formats::FormatInfo &info = formats::kFormats[args.format];
  at::Tensor out = at::empty(args.out_shape, packed.options().dtype(args.dtype));
  if (out.numel() == 0) return out;
  const DecodeRow decode = kernels().decode_row(args.format, out_type(args.dtype));
  const auto *const first = packed.const_data_ptr<uint8_t>();
  if (packed.is_contiguous()) {
    decode_rows(info, decode, out, 1, out.numel(), [&](int64_t) { return first; });
  } else {
    const int64_t weights = args.out_shape.back();
    decode_rows(info, decode, out, out.numel() / weights, weights,
                [&](int64_t row) { return first + row_offset(packed, row); });
  }
  return out;
}

}  // namespace
}  // namespace rocforge::cpu

TORCH_LIBRARY_IMPL(rocforge, CPU, m) { m.impl("dequantize", rocforge::cpu::dequantize); }
