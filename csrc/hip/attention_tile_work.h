// What one workgroup of attention on matrix cores works on, where its queries come from and where its results go.
#pragma once

#include "hip/attention_blocks_pipe.h"
#include "hip/attention_work.h"

namespace rocforge::gpu {

// Of a launch: workgroups are numbered by batch row, head, tile of rows (those with the most keys first) and split.
struct Numbering {
  Divider splits, tiles, kv_heads, group;
};

struct Work {
  RowTile tile;
  int split;
  KeyRange keys;
  int64_t flat_row;  // of the tile's first among all rows: batch row, key/value head, query, head in the group
};

ROCFORGE_DEVICE Work work_of(const Attention &a, const Numbering &n, uint32_t item, int tile_rows, int key_unit) {
  const uint32_t rest = divide(item, n.splits), head = divide(rest, n.tiles), batch = divide(head, n.kv_heads);
  const auto split = static_cast<int>(item - rest * n.splits.divisor);
  const uint32_t number = n.tiles.divisor - 1 - (rest - head * n.tiles.divisor);
  const RowTile tile = row_tile(a, n.group, batch, head - batch * n.kv_heads.divisor, number, tile_rows);
  const KeyRange visible = tile.sequence.rule.visible(tile.first_query, tile.last_query);
  return {tile, split, share(visible, split, n.splits, key_unit),
          head * (a.rows * a.group) + int64_t{number} * tile_rows};
}

// Whose query a flat row of the tile is.
struct FlatRows {
  const RowTile &tile;
  const Divider &group;

  ROCFORGE_DEVICE int query(int r) const { return divide(tile.first_head + r, group); }  // from the tile's first on
  ROCFORGE_DEVICE int64_t head(int r) const {
    const uint32_t flat = tile.first_head + r;
    return tile.kv_head * group.divisor + (flat - divide(flat, group) * group.divisor);
  }
  // Rows past the tile's end compute what its last one does.
  ROCFORGE_DEVICE int clamped(int r) const { return r < tile.rows ? r : tile.rows - 1; }
};

template <class T>
ROCFORGE_DEVICE Source<T> source(const Heads &h, int64_t batch, int64_t head, int64_t row, int dims) {
  return {static_cast<const T *>(h.data) + batch * h.batch + head * h.head + row * h.row, h.row, dims, h.aligned};
}

ROCFORGE_DEVICE BlockSource block_source(const Heads &h, int64_t batch, int64_t head, int64_t row, int dims) {
  return {static_cast<const uint8_t *>(h.data) + batch * h.batch + head * h.head + row * h.row, h.row, dims};
}

// The queries of a tile: chunk(r, d) is values d .. d + 7 of flat row r, zeros past the end.
template <class T> struct Queries {
  const FlatRows &flat;
  Source<T> source;
  int64_t head_stride;

  ROCFORGE_DEVICE Queries(const Attention &a, const FlatRows &flat)
      : flat(flat),
        source(gpu::source<T>(a.query, flat.tile.sequence.batch, 0,
                              flat.tile.sequence.query_begin + flat.tile.first_query, a.head_dim)),
        head_stride(a.query.head) {}

  ROCFORGE_DEVICE bool has(int r) const { return r < flat.tile.rows; }
  ROCFORGE_DEVICE const T *row(int r) const {
    return source.first + (has(r) ? flat.head(r) * head_stride + flat.query(r) * source.stride : 0);
  }
  // use(chunk)
  template <class Use> ROCFORGE_DEVICE void with_chunks(Use use) const {
    if (source.aligned) {
      use([&](int r, int d) { return source.aligned_chunk(row(r), d, d, has(r)); });
    } else {
      use([&](int r, int d) { return source.any_chunk(row(r), d, d, has(r)); });
    }
  }

  // To a tile of LDS by kThreads threads, one group of copies.
  template <class Places, int kRows, int kDim, int kThreads> ROCFORGE_DEVICE void stage(T *tile) const {
    constexpr int kChunks = kDim / 8;
    const auto each_chunk = [&](auto move) {
#pragma unroll 4
      for (int i = threadIdx.x; i < kRows * kChunks; i += kThreads) {
        const int r = i / kChunks, d = i % kChunks * 8;
        move(tile + Places::at(r, d), r, d);
      }
    };
    if (source.aligned) {
      each_chunk([&](T *to, int r, int d) {
        const bool valid = has(r) && d < source.dims;
        copy_async(to, row(r) + (valid ? d : 0), valid);
      });
    } else {
      each_chunk([&](T *to, int r, int d) { store_chunk(to, source.any_chunk(row(r), d, d, has(r))); });
    }
    copies_issued();
  }
};

// Where the results of a tile's rows go: to `out` and `lse`, or to a split's outputs, peaks and sums.
template <class T> struct Results {
  const Attention &a;
  const Splits &splits;
  const Work &work;
  const FlatRows &flat;

  ROCFORGE_DEVICE bool split() const { return splits.count > 1; }
  ROCFORGE_DEVICE int64_t split_row(int r) const { return work.split * splits.rows + work.flat_row + r; }
  ROCFORGE_DEVICE int64_t row(int r) const {
    return out_row(a, work.tile.sequence, flat.head(r), work.tile.first_query + flat.query(r));
  }

  // What the row's outputs are to be multiplied with; `writes`: the state or lse too.
  ROCFORGE_DEVICE float end(int r, float peak, float sum, bool writes) const {
    if (split()) {
      if (writes) splits.peaks[split_row(r)] = peak, splits.sums[split_row(r)] = sum;
      return 1;
    }
    const auto end = end_row(a, flat.head(r), peak * static_cast<float>(a.exp_scale), sum);
    if (writes) a.lse[row(r)] = end.lse;
    return end.factor;
  }
  // use(pointer to the row's outputs). A split without keys leaves none: its sum says so.
  template <class Use> ROCFORGE_DEVICE void with_out(int r, Use use) const {
    if (!split()) {
      use(static_cast<T *>(a.out) + row(r) * a.value_dim);
    } else if (!work.keys.empty()) {
      use(splits.outs + split_row(r) * a.value_dim);
    }
  }
};

}  // namespace rocforge::gpu
