// A group of lanes rotates heads of one token.
#include "hip/gpu.h"
// gpu.h first.
#include "hip/head_vectors.h"
#include "hip/rotary_embedding.h"

namespace rocforge::gpu {
namespace {

template <class T, bool kInterleaved>
ROCFORGE_DEVICE HeadRows<T> rows_of(const Rotary &work, const HeadGrid &grid, const HeadUnit &unit) {
  const auto offset = [&](const int64_t (&strides)[3]) {
    return unit.batch * strides[0] + unit.block * strides[1] + unit.token * strides[2];
  };
  const int64_t out_head = work.length * work.head_dim;
  HeadRows<T> rows{};
  rows.x = static_cast<const T *>(work.x) + offset(work.x_strides);
  rows.out =
      static_cast<T *>(work.out) + (unit.batch * work.heads + unit.block) * out_head + unit.token * work.head_dim;
  rows.x_step = grid.blocks * work.x_strides[1];
  rows.out_step = grid.blocks * out_head;
  rows.element_step = work.element_step;
  rows.heads = rows.most_heads =
      unit.exists ? static_cast<int>((work.heads - unit.block + grid.blocks - 1) / grid.blocks) : 0;
  rows.items = {work.head_dim, work.pairs, kInterleaved, kWidth<T>};
  rows.angles = work.angles;
  rows.offsets = {offset(work.cos_strides), offset(work.sin_strides), grid.blocks * work.cos_strides[1],
                  grid.blocks * work.sin_strides[1]};
  return rows;
}

template <class T, bool kInterleaved, bool kVector>
__global__ void __launch_bounds__(kHeadThreads) rotary_kernel(const Rotary work, const HeadGrid grid) {
  const HeadUnit unit = unit_of_group(grid, blockIdx.x);
  const HeadRows<T> rows = rows_of<T, kInterleaved>(work, grid, unit);
  if constexpr (kVector) {
    rotate_vectors<T, kInterleaved>(rows, unit.lane, unit.lanes);
  } else {
    process_elements(rows, unit.lane, unit.lanes);
  }
}

template <class T> void launch_rotary(const Rotary &work, void *stream) {
  const HeadGrid grid =
      head_grid(work.batch, work.length, work.heads, row_lanes(work.head_dim, work.pairs, kWidth<T>),
                device_properties().compute_units, /*tokens_inside=*/work.x_strides[2] < work.x_strides[1]);
  auto *kernel = work.interleaved ? rotary_kernel<T, true, false> : rotary_kernel<T, false, false>;
  if constexpr (sizeof(T) < sizeof(double)) {  // nobody waits for float64
    if (work.vector) kernel = work.interleaved ? rotary_kernel<T, true, true> : rotary_kernel<T, false, true>;
  }
  launch({"rotary_embedding", dim3(grid.workgroups()), kHeadThreads, stream}, kernel, work, grid);
}

}  // namespace

void rotate(const Rotary &work, void *stream) {
  switch (work.type) {
    case RowType::kDouble:
      return launch_rotary<double>(work, stream);
    case RowType::kFloat:
      return launch_rotary<float>(work, stream);
    case RowType::kHalf:
      return launch_rotary<f16>(work, stream);
    case RowType::kBFloat16:
      return launch_rotary<bf16>(work, stream);
  }
}

}  // namespace rocforge::gpu
