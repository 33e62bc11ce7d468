// Which rows of the input a workgroup takes, for linear and grouped_linear.
#pragma once

#include "hip/gpu.h"
#include "hip/linear.h"

namespace rocforge::gpu {

// Rows of the input that one workgroup takes as columns, and whose weights they meet.
struct ColumnTile {
  int64_t first;
  int count;   // 0: there is no such tile
  int expert;  // work.experts: rows that belong to none, and become 0
};

// Rows of the input where expert `e` begins; the end of the rows behind the last.
ROCFORGE_DEVICE int64_t expert_begin(const LinearWork &work, int e) {
  const int64_t begin = e > work.experts ? work.rows : work.offsets[e];
  return begin < 0 ? 0 : begin > work.rows ? work.rows : begin;
}

// Experts' rows are cut into tiles one after another. Each lane counts those of a few experts; rows of no expert count
// as one more. All lanes get the same tile.
ROCFORGE_DEVICE ColumnTile grouped_tile(const LinearWork &work, int64_t tile, int columns) {
  const int groups = work.experts + 1, share = (groups + kWave - 1) / kWave, lane = lane_id();
  const int first = lane * share, last = first + share < groups ? first + share : groups;
  const auto tiles_of = [&](int e) {
    const int64_t rows = expert_begin(work, e + 1) - expert_begin(work, e);
    return rows > 0 ? (rows + columns - 1) / columns : 0;
  };
  int64_t tiles = 0;
  for (int e = first; e < last; ++e) tiles += tiles_of(e);
  int64_t before = tiles;  // of the lanes up to this one
#pragma unroll
  for (int step = 1; step < kWave; step *= 2) {
    const int64_t other = shuffle_up(before, step);
    if (lane >= step) before += other;
  }
  before -= tiles;
  const LaneMask owners = ballot(before <= tile && tile < before + tiles);
  ColumnTile found{0, 0, 0};
  if (before <= tile && tile < before + tiles) {
    int e = first;
    for (int64_t here = tiles_of(e); tile >= before + here; here = tiles_of(e)) before += here, ++e;
    const int64_t begin = expert_begin(work, e) + (tile - before) * columns, rest = expert_begin(work, e + 1) - begin;
    found = {begin, static_cast<int>(rest < columns ? rest : columns), e};
  }
  int owner = 0;
  while (owner < kWave - 1 && !(owners >> owner & 1)) ++owner;
  return shuffle(found, owner);
}

ROCFORGE_DEVICE ColumnTile column_tile(const LinearWork &work, int64_t tile, int columns) {
  if (work.offsets) return grouped_tile(work, tile, columns);
  const int64_t first = tile * columns, rest = work.rows - first;
  return {first, static_cast<int>(rest < columns ? rest : columns), 0};
}

}  // namespace rocforge::gpu
