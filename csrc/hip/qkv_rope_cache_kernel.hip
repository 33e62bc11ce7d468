// A workgroup works on the query, the key or the value heads of the projection; a group of its lanes takes heads of one
// token: bias, norm and rotation, and on to the query or to a slot of a cache.
#include "hip/gpu.h"
// gpu.h first.
#include "hip/head_vectors.h"
#include "hip/qkv_rope_cache.h"

namespace rocforge::gpu {
namespace {

// How the workgroups are shared out: each part has those before its end.
struct QkvGrid {
  HeadGrid parts[3];
  unsigned end[3];
};

ROCFORGE_DEVICE int64_t position_of(const PositionTable &table, int64_t batch, int64_t token) {
  const int64_t at = batch * table.strides[0] + token * table.strides[1];
  const int64_t given =
      table.wide ? static_cast<const int64_t *>(table.values)[at] : static_cast<const int32_t *>(table.values)[at];
  return given + token * table.step;
}

// The token's slot; -1: none. In a ring a token gives way to the later one on its slot.
ROCFORGE_DEVICE int64_t slot_of(const QkvRopeCache &work, int64_t batch, int64_t token) {
  const int64_t position = position_of(work.slots, batch, token), capacity = work.capacity;
  if (position < 0 || capacity == 0) return -1;
  if (!work.ring) return position < capacity ? position : -1;
  const bool overwritten =
      token + capacity < work.length && position_of(work.slots, batch, token + capacity) == position + capacity;
  return overwritten ? -1 : position % capacity;
}

ROCFORGE_DEVICE AngleOffsets angles_at(const QkvRopeCache &work, int64_t batch, int64_t token) {
  if (!work.rows.values) {
    return {batch * work.cos_strides[0] + token * work.cos_strides[1],
            batch * work.sin_strides[0] + token * work.sin_strides[1], 0, 0};
  }
  const int64_t row = position_of(work.rows, batch, token);
  if (row < 0 || row >= work.table_rows) return {-1, -1, 0, 0};
  return {row * work.cos_strides[1], row * work.sin_strides[1], 0, 0};
}

template <class T, bool kInterleaved>
ROCFORGE_DEVICE HeadRows<T> rows_of(const QkvRopeCache &work, const QkvPart &part, const HeadGrid &grid,
                                    const HeadUnit &unit) {
  const int64_t row = part.cached ? slot_of(work, unit.batch, unit.token) : unit.token;
  HeadRows<T> rows;
  rows.x = static_cast<const T *>(part.x) + unit.batch * part.x_strides[0] + unit.token * part.x_strides[1] +
           unit.block * part.x_strides[2];
  const int64_t out_row = row < 0 ? 0 : row;
  rows.out = static_cast<T *>(part.out);
  if (work.capacity > 0 || !part.cached) {  // a cache without room has no memory either
    rows.out += unit.batch * part.out_strides[0] + unit.block * part.out_strides[1] + out_row * part.out_strides[2];
  }
  rows.x_step = grid.blocks * part.x_strides[2];
  rows.out_step = grid.blocks * part.out_strides[1];
  rows.element_step = 1;
  rows.most_heads = (part.heads + grid.blocks - 1) / grid.blocks;
  rows.heads = unit.exists && row >= 0 ? (part.heads - unit.block + grid.blocks - 1) / grid.blocks : 0;
  rows.items = {part.head_dim, part.pairs, kInterleaved, kWidth<T>};
  rows.angles = work.angles;
  rows.offsets = part.pairs > 0 ? angles_at(work, unit.batch, unit.token) : AngleOffsets{0, 0, 0, 0};
  rows.bias = part.bias;
  rows.norm = part.norm;
  rows.bias_at = static_cast<int64_t>(unit.block) * part.head_dim;
  rows.bias_step = static_cast<int64_t>(grid.blocks) * part.head_dim;
  rows.eps = static_cast<Wide<T>>(work.eps);
  return rows;
}

enum class QkvPath { kRotate, kVectors, kElements };

template <class T, bool kInterleaved, QkvPath kPath>
__global__ void __launch_bounds__(kHeadThreads)
    qkv_kernel(const ROCFORGE_INDEXED QkvRopeCache work, const ROCFORGE_INDEXED QkvGrid grid) {
  const int index = (blockIdx.x >= grid.end[0]) + (blockIdx.x >= grid.end[1]);
  const HeadUnit unit = unit_of_group(grid.parts[index], blockIdx.x - (index == 0 ? 0 : grid.end[index - 1]));
  const HeadRows<T> rows = rows_of<T, kInterleaved>(work, work.parts[index], grid.parts[index], unit);
  if constexpr (kPath == QkvPath::kRotate) {
    rotate_vectors<T, kInterleaved>(rows, unit.lane, unit.lanes);
  } else if constexpr (kPath == QkvPath::kVectors) {
    process_vectors<T, kInterleaved>(rows, unit.lane, unit.lanes);
  } else {
    process_elements(rows, unit.lane, unit.lanes);
  }
}

template <class T, QkvPath kPath> void launch_path(const QkvRopeCache &work, const QkvGrid &grid, void *stream) {
  auto *const kernel = work.interleaved ? qkv_kernel<T, true, kPath> : qkv_kernel<T, false, kPath>;
  launch({"qkv_rope_cache", dim3(grid.end[2]), kHeadThreads, stream}, kernel, work, grid);
}

template <class T> void launch_qkv(const QkvRopeCache &work, void *stream) {
  QkvGrid grid;
  bool rotate_only = true, one_item = true;
  unsigned end = 0;
  for (int i = 0; i < 3; ++i) {
    const QkvPart &part = work.parts[i];
    const int lanes = row_lanes(part.head_dim, part.pairs, kWidth<T>);
    grid.parts[i] = head_grid(work.batch, work.length, part.heads, lanes, device_properties().compute_units, false);
    grid.end[i] = end += grid.parts[i].workgroups();
    rotate_only = rotate_only && !part.bias.first && !part.norm.first;
    one_item = one_item && row_items(part.head_dim, part.pairs, kWidth<T>) <= lanes;
  }
  if constexpr (sizeof(T) < sizeof(double)) {  // nobody waits for float64
    if (work.vector && rotate_only) return launch_path<T, QkvPath::kRotate>(work, grid, stream);
    if (work.vector && one_item) return launch_path<T, QkvPath::kVectors>(work, grid, stream);
  }
  launch_path<T, QkvPath::kElements>(work, grid, stream);
}

}  // namespace

void place_heads(const QkvRopeCache &work, void *stream) {
  switch (work.type) {
    case RowType::kDouble:
      return launch_qkv<double>(work, stream);
    case RowType::kFloat:
      return launch_qkv<float>(work, stream);
    case RowType::kHalf:
      return launch_qkv<f16>(work, stream);
    case RowType::kBFloat16:
      return launch_qkv<bf16>(work, stream);
  }
}

}  // namespace rocforge::gpu
