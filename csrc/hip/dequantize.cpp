#include "ops/dequantize.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "hip/row_map.h"
#include "hip/stream.h"

namespace rocforge::gpu {
namespace {

at::Tensor dequantize(const at::Tensor &packed, c10::string_view format, std::optional<at::ScalarType> dtype) {
  const DequantizeArgs args = dequantize_args(packed, format, dtype);
  at::Tensor out = at::empty(args.out_shape, packed.options().dtype(args.dtype));
  if (out.numel() == 0) return out;
  const DeviceStream stream(packed.device());
  // A contiguous tensor is one long row.
  const int64_t weights = packed.is_contiguous() ? out.numel() : args.out_shape.back();
  const at::Tensor rows = packed.is_contiguous() ? packed.view({1, -1}) : mappable(packed);
  decode_rows(args.format, out_type(args.dtype),
              {row_map(rows), out.mutable_data_ptr(), out.numel() / weights, weights}, stream.get());
  return out;
}

}  // namespace
}  // namespace rocforge::gpu

TORCH_LIBRARY_IMPL(rocforge, ROCFORGE_GPU_KEY, m) { m.impl("dequantize", rocforge::gpu::dequantize); }
