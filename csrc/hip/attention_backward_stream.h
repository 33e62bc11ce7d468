// Pairs of tiles of streamed rows on their way from global memory to LDS, ahead of their use. All threads of the
// workgroup call
//     start();  then, for every pair  ready(),
// which holds the barriers and returns where the tiles lie until its next call.
#pragma once

#include "hip/attention_backward_tiles.h"
#include "hip/attention_pipe.h"
#include "hip/gpu/wave_group.h"

namespace rocforge::gpu {

// Rows row .. row + left - 1 of both tensors, of one head.
template <class T> struct StreamedRows {
  Source<T> first, second;
  int left;
};

// `columns`: transposed where the layout wants values so, else the rows themselves.
template <class T> struct StreamedTiles {
  const T *first, *second, *first_columns, *second_columns;
};

// K: the types and numbers of the kernel. `at(i)`: StreamedRows of pair i.

// Copies of several pairs under way at once, straight to LDS.
template <class K, class At> class AsyncStream {
  using T = typename K::T;
  using Copy = TileCopy<T, K::kDim, K::kTile.streamed, K::kThreads>;
  using Rows = typename K::Rows;
  static constexpr int kPair = 2 * K::kLds.row_tile, kStages = K::kTile.stages;

 public:
  ROCFORGE_DEVICE AsyncStream(T *lds, int pairs, At at) : lds_(lds), pairs_(pairs), at_(at) {}

  ROCFORGE_DEVICE void start() {
#pragma unroll 1
    for (int i = 0; i < kStages - 1; ++i) fetch();
  }
  ROCFORGE_DEVICE StreamedTiles<T> ready() {
    copies_arrived<kStages - 2>();
    lds_written();
    syncthreads();
    fetch();  // over the pair used last: the barrier says that all are done with it
    const T *const pair = lds_ + stage_ * kPair;
    stage_ = stage_ + 1 == kStages ? 0 : stage_ + 1;
    return {pair, pair + kPair / 2, pair, pair + kPair / 2};
  }
  ROCFORGE_DEVICE void finish() { copies_arrived<0>(); }

 private:
  ROCFORGE_DEVICE void fetch() {
    if (fetched_ < pairs_) {
      const StreamedRows<T> rows = at_(fetched_);
      copy(lds_ + fetch_stage_ * kPair, rows.first, rows.left);
      copy(lds_ + fetch_stage_ * kPair + kPair / 2, rows.second, rows.left);
    }
    copies_issued();
    ++fetched_;
    fetch_stage_ = fetch_stage_ + 1 == kStages ? 0 : fetch_stage_ + 1;
  }
  ROCFORGE_DEVICE void copy(T *tile, const Source<T> &source, int left) {
    const int thread = opaque(static_cast<int>(threadIdx.x));
    const int first_row = thread / Copy::kChunks, d = thread % Copy::kChunks * 8;
    const uint32_t offset = source.offset(first_row, d);
    if (source.aligned) {
      const int rows = d < source.dims ? left : 0;
      const int64_t step = Copy::kRowStep * source.stride;
      const T *from = source.first + offset;
#pragma unroll
      for (int i = 0; i < Copy::kItems; ++i) {
        const int row = first_row + i * Copy::kRowStep;
        copy_async(tile + Rows::at(row, d), row < rows ? from : source.first, row < rows);
        from += step;
      }
    } else {
#pragma unroll 1
      for (int i = 0; i < Copy::kItems; ++i) {
        const int step = i * Copy::kRowStep;
        store_chunk(tile + Rows::at(first_row + step, d),
                    source.any_chunk(source.row(step), offset, d, first_row + step < left));
      }
    }
  }

  T *const lds_;
  const int pairs_;
  At at_;
  int stage_ = 0, fetch_stage_ = 0, fetched_ = 0;
};

// One pair in LDS, as rows and as columns; the next waits in registers while it is used.
template <class K, class At> class StagedStream {
  using T = typename K::T;
  using Rows = typename K::Rows;
  static constexpr int kRun = K::Layout::kRun, kStreamed = K::kTile.streamed;
  using Columns = PaddedColumns<kStreamed, kRun>;
  // Tiles move in units of kRun rows by kWidth values, 64 bytes of registers. The lanes that read 64 bytes of a row
  // are neighbours; the next ones are kRun rows further, so that their writes to columns are side by side.
  static constexpr int kWidth = 32 / kRun, kNeighbours = 32 / kWidth;
  static constexpr int kRowUnits = kStreamed / kRun, kUnits = kRowUnits * K::kDim / kWidth;
  static constexpr int kUnitsOfThread = (2 * kUnits + K::kThreads - 1) / K::kThreads;
  using Words = Vec<uint32_t, kWidth / 2>;
  static ROCFORGE_DEVICE int row_of(int unit) { return unit / kNeighbours % kRowUnits * kRun; }
  static ROCFORGE_DEVICE int d_of(int unit) {
    return (unit / (kNeighbours * kRowUnits) * kNeighbours + unit % kNeighbours) * kWidth;
  }

 public:
  ROCFORGE_DEVICE StagedStream(T *lds, int pairs, At at)
      : first_(lds),
        second_(first_ + K::kLds.row_tile),
        first_columns_(second_ + K::kLds.row_tile),
        second_columns_(first_columns_ + (K::kFirst ? K::kLds.column_tile : 0)),
        pairs_(pairs),
        at_(at) {}

  ROCFORGE_DEVICE void start() { fetch(); }
  ROCFORGE_DEVICE StreamedTiles<T> ready() {
    syncthreads();  // all are done with the pair before
#pragma unroll
    for (int u = 0; u < kUnitsOfThread; ++u) {
      const int unit = opaque(static_cast<int>(threadIdx.x)) + u * K::kThreads;
      if (2 * kUnits % K::kThreads != 0 && unit >= 2 * kUnits) break;
      const bool second = unit >= kUnits;
      const int row = row_of(unit % kUnits), d = d_of(unit % kUnits);
      store_rows(second ? second_ : first_, row, d, registers_[u]);
      if (second ? K::kSecond : K::kFirst) {
        store_columns(second ? second_columns_ : first_columns_, row, d, registers_[u]);
      }
    }
    syncthreads();
    fetch();
    return {first_, second_, first_columns_, second_columns_};
  }
  ROCFORGE_DEVICE void finish() {}

 private:
  ROCFORGE_DEVICE void fetch() {
    if (fetched_ >= pairs_) return;
    const StreamedRows<T> rows = at_(fetched_++);
    if (rows.first.aligned && rows.second.aligned) {
      fetch(rows, [](const Source<T> &s, auto... chunk) { return s.template aligned_chunk<kWidth / 2>(chunk...); });
    } else {
      fetch(rows, [](const Source<T> &s, auto... chunk) { return s.template any_chunk<kWidth / 2>(chunk...); });
    }
  }
  template <class ReadChunk> ROCFORGE_DEVICE void fetch(const StreamedRows<T> &rows, ReadChunk read) {
#pragma unroll
    for (int u = 0; u < kUnitsOfThread; ++u) {
      const int unit = opaque(static_cast<int>(threadIdx.x)) + u * K::kThreads;
      if (2 * kUnits % K::kThreads != 0 && unit >= 2 * kUnits) break;
      const bool second = unit >= kUnits;
      const Source<T> source{second ? rows.second.first : rows.first.first,
                             second ? rows.second.stride : rows.first.stride,
                             second ? rows.second.dims : rows.first.dims, true};
      const int row = row_of(unit % kUnits), d = d_of(unit % kUnits);
      const uint32_t offset = source.offset(row, d);
#pragma unroll
      for (int k = 0; k < kRun; ++k) registers_[u][k] = read(source, source.row(k), offset, d, row + k < rows.left);
    }
  }
  static ROCFORGE_DEVICE void store_rows(T *tile, int row, int d, const Words (&unit)[kRun]) {
#pragma unroll
    for (int k = 0; k < kRun; ++k) store(reinterpret_cast<uint32_t *>(tile + Rows::at(row + k, d)), unit[k]);
  }
  static ROCFORGE_DEVICE void store_columns(T *tile, int row, int d, const Words (&unit)[kRun]) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      Vec<uint32_t, kRun / 2> run;
#pragma unroll
      for (int k = 0; k < kRun; k += 2) {
        const uint32_t low = unit[k][j / 2], high = unit[k + 1][j / 2];
        run[k / 2] = j % 2 == 0 ? (low & 0xffff) | high << 16 : low >> 16 | (high & 0xffff0000);
      }
      store(reinterpret_cast<uint32_t *>(tile + Columns::at(d + j, row)), run);
    }
  }

  T *const first_, *const second_, *const first_columns_, *const second_columns_;
  const int pairs_;
  At at_;
  int fetched_ = 0;
  Words registers_[kUnitsOfThread][kRun];
};

}  // namespace rocforge::gpu
