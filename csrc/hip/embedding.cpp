#include "ops/embedding.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <limits>

#include "hip/row_map.h"
#include "hip/stream.h"

namespace rocforge::gpu {
namespace {

at::Tensor embedding(const at::Tensor &packed, c10::string_view format, const at::Tensor &indices,
                     std::optional<at::ScalarType> dtype) {
  const EmbeddingArgs args = embedding_args(packed, format, indices, dtype);
  at::Tensor out = at::empty(args.out_shape, packed.options().dtype(args.dtype));
  if (out.numel() == 0) return out;
  // No index is in range, and the kernel reads at least one row.
  if (packed.size(0) == 0) return out.fill_(std::numeric_limits<double>::quiet_NaN());
  const DeviceStream stream(packed.device());
  const at::Tensor rows = indices.contiguous();
  RowMap map = row_map(packed);
  map.indices = rows.const_data_ptr();
  map.wide_indices = rows.scalar_type() == at::kLong;
  map.table_rows = packed.size(0);
  decode_rows(args.format, out_type(args.dtype), {map, out.mutable_data_ptr(), rows.numel(), args.out_shape.back()},
              stream.get());
  return out;
}

}  // namespace
}  // namespace rocforge::gpu

TORCH_LIBRARY_IMPL(rocforge, ROCFORGE_GPU_KEY, m) { m.impl("embedding", rocforge::gpu::embedding); }
