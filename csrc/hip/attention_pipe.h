// Tiles of keys and values on their way from global memory to LDS, ahead of their use.
//
// A group of threads (the workgroup, or one wave) walks over tiles; each of its threads calls
//     start();  then, for every tile  keys_ready(), and after the scores values_ready().
// What these return may be read until the next call of the same function. They hold the barriers.
#pragma once

#include "hip/attention_layout.h"
#include "ops/attention_rule.h"

namespace rocforge::gpu {

// Rows of keys or values of one head, 16-bit. The address of a chunk is the same number in all threads plus a 32-bit
// offset: the first lives in scalar registers, and what a thread keeps for its addresses is one register.
template <class T> struct Source {
  const T *first;
  int64_t stride;
  int dims;
  bool aligned;

  ROCFORGE_DEVICE const T *row(int64_t i) const { return first + i * stride; }
  ROCFORGE_DEVICE uint32_t offset(int row, int d) const { return static_cast<uint32_t>(row * stride) + d; }

  // 2 * kWords values of a row from d on, zeros where it has none.
  template <int kWords = 4>
  ROCFORGE_DEVICE Vec<uint32_t, kWords> aligned_chunk(const T *base, uint32_t offset, int d, bool valid) const {
    if (!valid || d >= dims) return {};
    return load<kWords>(reinterpret_cast<const uint32_t *>(base + offset));
  }
  // The same one by one. The last goes in first and is moved up by the others: nothing is indexed, and nothing
  // unrolled.
  template <int kWords = 4>
  ROCFORGE_DEVICE Vec<uint32_t, kWords> any_chunk(const T *base, uint32_t offset, int d, bool valid) const {
    Vec<uint32_t, kWords> words = {};
#pragma unroll 1
    for (int j = 2 * kWords - 1; j >= 0; --j) {
      const uint32_t bits = valid && d + j < dims ? base[offset + j].bits : 0;
#pragma unroll
      for (int w = kWords - 1; w > 0; --w) words[w] = words[w] << 16 | words[w - 1] >> 16;
      words[0] = words[0] << 16 | bits;
    }
    return words;
  }
};

// The tiles of one group of threads, each of them `tile` keys: with `waves` groups every so many.
struct Walk {
  int64_t begin, end;
  int step, tiles;

  ROCFORGE_DEVICE Walk(KeyRange keys, int wave, int tile, int waves)
      : begin(keys.begin + wave * tile),
        end(keys.end),
        step(waves * tile),
        tiles(end > begin ? static_cast<int>((end - begin + step - 1) / step) : 0) {}
  ROCFORGE_DEVICE int64_t key(int tile) const { return begin + static_cast<int64_t>(tile) * step; }
  // Tiles that begin before `key`, and tiles of `size` keys that end at or before it.
  ROCFORGE_DEVICE int tiles_before(int64_t key) const {
    return key <= begin ? 0 : static_cast<int>((key - begin + step - 1) / step);
  }
  ROCFORGE_DEVICE int tiles_within(int64_t key, int size) const {
    return key < begin + size ? 0 : static_cast<int>((key - size - begin) / step) + 1;
  }
  ROCFORGE_DEVICE int keys_left(int64_t key, int most) const {
    return end - key < most ? (end > key ? static_cast<int>(end - key) : 0) : most;
  }
};

template <class T, int kDim, int kKeys, int kThreads> struct TileCopy {
  static constexpr int kChunks = kDim / 8;
  static constexpr int kItems = kKeys * kChunks / kThreads;  // of a thread
  static constexpr int kRowStep = kThreads / kChunks;
  static_assert(kKeys * kChunks % kThreads == 0 && kThreads % kChunks == 0, "every thread copies the same number");
};

// Values of kRun rows, side by side in pairs: column j of them goes to at(j).
template <int kRun, int kPairs, class At>
ROCFORGE_DEVICE void store_transposed(const Vec<uint32_t, kPairs> (&rows)[kRun], At at) {
#pragma unroll
  for (int j = 0; j < 2 * kPairs; ++j) {
    Vec<uint32_t, kRun / 2> run;
#pragma unroll
    for (int k = 0; k < kRun; k += 2) {
      const uint32_t low = rows[k][j / 2], high = rows[k + 1][j / 2];
      run[k / 2] = j % 2 == 0 ? (low & 0xffff) | high << 16 : low >> 16 | (high & 0xffff0000);
    }
    store(reinterpret_cast<uint32_t *>(at(j)), run);
  }
}

// One thread group's barrier.
template <bool kWholeWorkgroup> ROCFORGE_DEVICE void sync_group() {
  if constexpr (kWholeWorkgroup) {
    syncthreads();
  } else {
    syncwave();
  }
}

// Copies of several tiles under way at once, straight to LDS; keys and values lie there in rows.
template <class Layout, int kDim, int kKeys, int kStages, int kThreads, bool kWholeWorkgroup> class AsyncPipe {
  using T = typename Layout::T;
  using Copy = TileCopy<T, kDim, kKeys, kThreads>;
  using Rows = typename Layout::template Rows<kDim>;
  static constexpr int kTile = Rows::size(kKeys);

 public:
  static constexpr int kSize = kStages * 2 * kTile;  // in values
  // From there on there is room for one tile of keys and values, not used before the first keys_ready().
  static constexpr int kSpare = (kStages - 1) * 2 * kTile;

  ROCFORGE_DEVICE AsyncPipe(T *lds, const Source<T> &keys, const Source<T> &values, const Walk &walk, int thread)
      : lds_(lds), keys_(keys), values_(values), walk_(walk), thread_(thread) {}

  ROCFORGE_DEVICE void start() {
#pragma unroll 1
    for (int i = 0; i < kStages - 1; ++i) fetch();
  }
  ROCFORGE_DEVICE const T *keys_ready() {
    copies_arrived<kStages - 2>();
    sync_group<kWholeWorkgroup>();
    fetch();  // over the tile used last: the barrier says that all are done with it
    current_ = lds_ + stage_ * 2 * kTile;
    stage_ = stage_ + 1 == kStages ? 0 : stage_ + 1;
    return current_;
  }
  ROCFORGE_DEVICE const T *values_ready() { return current_ + kTile; }
  ROCFORGE_DEVICE void finish() { copies_arrived<0>(); }

 private:
  ROCFORGE_DEVICE void fetch() {
    if (fetched_ < walk_.tiles) {
      const int64_t key = walk_.key(fetched_);
      T *const tile = lds_ + fetch_stage_ * 2 * kTile;
      copy(tile, keys_, key);
      copy(tile + kTile, values_, key);
    }
    copies_issued();
    ++fetched_;
    fetch_stage_ = fetch_stage_ + 1 == kStages ? 0 : fetch_stage_ + 1;
  }
  ROCFORGE_DEVICE void copy(T *tile, const Source<T> &source, int64_t key) {
    const int thread = opaque(thread_), first_row = thread / Copy::kChunks, d = thread % Copy::kChunks * 8;
    const int left = walk_.keys_left(key, kKeys);
    const uint32_t offset = source.offset(first_row, d);
    if (source.aligned) {
      const int rows = d < source.dims ? left : 0;
      const int64_t step = Copy::kRowStep * source.stride;
      const T *from = source.row(key) + offset;
#pragma unroll
      for (int i = 0; i < Copy::kItems; ++i) {
        const int row = first_row + i * Copy::kRowStep;
        copy_async(tile + Rows::at(row, d), from, row < rows);
        from += step;
      }
    } else {
#pragma unroll 1
      for (int i = 0; i < Copy::kItems; ++i) {
        const int step = i * Copy::kRowStep;
        const Chunk chunk = source.any_chunk(source.row(key + step), offset, d, first_row + step < left);
        store_chunk(tile + Rows::at(first_row + step, d), chunk);
      }
    }
  }

  T *const lds_;
  const Source<T> &keys_, &values_;
  const Walk &walk_;
  const int thread_;
  const T *current_ = nullptr;
  int stage_ = 0, fetch_stage_ = 0, fetched_ = 0;
};

// One tile of keys and one of transposed values in LDS; the next of each waits in registers while the other is used.
template <class Layout, int kDim, int kKeys, int kThreads, bool kWholeWorkgroup> class StagedPipe {
  using T = typename Layout::T;
  using Copy = TileCopy<T, kDim, kKeys, kThreads>;
  using Rows = typename Layout::template Rows<kDim>;
  static constexpr int kRun = Layout::kRun;
  using Columns = PaddedColumns<kKeys, kRun>;
  // Values move in units of kRun keys by kWidth values of d, 64 bytes of registers. The lanes that read 64 bytes of a
  // row are neighbours; the next ones are kRun keys further, so that their writes to LDS are side by side.
  static constexpr int kWidth = 32 / kRun, kNeighbours = 32 / kWidth;
  static constexpr int kKeyUnits = kKeys / kRun, kUnits = kKeyUnits * kDim / kWidth;
  static constexpr int kUnitsOfThread = (kUnits + kThreads - 1) / kThreads;
  static ROCFORGE_DEVICE int key_of(int unit) { return unit / kNeighbours % kKeyUnits * kRun; }
  static ROCFORGE_DEVICE int d_of(int unit) {
    return (unit / (kNeighbours * kKeyUnits) * kNeighbours + unit % kNeighbours) * kWidth;
  }

 public:
  static constexpr int kSize = Rows::size(kKeys) + Columns::size(kDim);  // in values

  ROCFORGE_DEVICE StagedPipe(T *lds, const Source<T> &keys, const Source<T> &values, const Walk &walk, int thread)
      : key_tile_(lds),
        value_tile_(lds + Rows::size(kKeys)),
        keys_(keys),
        values_(values),
        walk_(walk),
        thread_(thread) {}

  ROCFORGE_DEVICE void start() { fetch_keys(); }
  ROCFORGE_DEVICE const T *keys_ready() {
    const int thread = opaque(thread_), first_row = thread / Copy::kChunks, d = thread % Copy::kChunks * 8;
#pragma unroll
    for (int i = 0; i < Copy::kItems; ++i) {
      store_chunk(key_tile_ + Rows::at(first_row + i * Copy::kRowStep, d), key_registers_[i]);
    }
    sync_group<kWholeWorkgroup>();
    fetch_values();
    return key_tile_;
  }
  ROCFORGE_DEVICE const T *values_ready() {
#pragma unroll
    for (int u = 0; u < kUnitsOfThread; ++u) {
      const int unit = opaque(thread_) + u * kThreads, key = key_of(unit), d = d_of(unit);
      if (kUnits % kThreads != 0 && unit >= kUnits) break;
      store_transposed(value_registers_[u], [&](int j) { return value_tile_ + Columns::at(d + j, key); });
    }
    sync_group<kWholeWorkgroup>();
    ++tile_;
    fetch_keys();
    return value_tile_;
  }
  ROCFORGE_DEVICE void finish() {}

 private:
  ROCFORGE_DEVICE void fetch_keys() {
    if (tile_ >= walk_.tiles) return;
    if (keys_.aligned) {
      fetch_keys([&](auto... chunk) { return keys_.aligned_chunk(chunk...); });
    } else {
      fetch_keys([&](auto... chunk) { return keys_.any_chunk(chunk...); });
    }
  }
  template <class ReadChunk> ROCFORGE_DEVICE void fetch_keys(ReadChunk read) {
    const int64_t key = walk_.key(tile_);
    const int thread = opaque(thread_), first_row = thread / Copy::kChunks, d = thread % Copy::kChunks * 8;
    const int left = walk_.keys_left(key, kKeys);
    const uint32_t offset = keys_.offset(first_row, d);
#pragma unroll
    for (int i = 0; i < Copy::kItems; ++i) {
      const int step = i * Copy::kRowStep;
      key_registers_[i] = read(keys_.row(key + step), offset, d, first_row + step < left);
    }
  }
  ROCFORGE_DEVICE void fetch_values() {
    if (values_.aligned) {
      fetch_values([&](auto... chunk) { return values_.template aligned_chunk<kWidth / 2>(chunk...); });
    } else {
      fetch_values([&](auto... chunk) { return values_.template any_chunk<kWidth / 2>(chunk...); });
    }
  }
  template <class ReadChunk> ROCFORGE_DEVICE void fetch_values(ReadChunk read) {
    const int64_t key = walk_.key(tile_);
    const int left = walk_.keys_left(key, kKeys);
#pragma unroll
    for (int u = 0; u < kUnitsOfThread; ++u) {
      const int unit = opaque(thread_) + u * kThreads, row = key_of(unit), d = d_of(unit);
      if (kUnits % kThreads != 0 && unit >= kUnits) break;
      const uint32_t offset = values_.offset(row, d);
#pragma unroll
      for (int k = 0; k < kRun; ++k) {
        value_registers_[u][k] = read(values_.row(key + k), offset, d, row + k < left);
      }
    }
  }

  T *const key_tile_, *const value_tile_;
  const Source<T> &keys_, &values_;
  const Walk &walk_;
  const int thread_;
  int tile_ = 0;
  Chunk key_registers_[Copy::kItems];
  Vec<uint32_t, kWidth / 2> value_registers_[kUnitsOfThread][kRun];
};

}  // namespace rocforge::gpu
