// One thread decodes 8 neighbouring weights, converts them and stores 16 or 32 bytes.
// Compiled in several shards: this file instantiates the formats whose position is ROCFORGE_SHARD modulo
// ROCFORGE_SHARDS, so that compilers work on all of them at once and no second list of formats is needed.
#include "hip/gpu.h"
// gpu.h first: it says what the formats' functions are on this device.
#include "formats/registry.h"
#include "hip/decode_rows.h"

#define ROCFORGE_JOIN_(a, b) a##b
#define ROCFORGE_JOIN(a, b) ROCFORGE_JOIN_(a, b)
#define ROCFORGE_DECODE_SHARD ROCFORGE_JOIN(decode_shard_, ROCFORGE_SHARD)

namespace rocforge::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 2;  // groups a thread decodes before it stores: more loads in flight
constexpr int kTileGroups = kThreads * kUnroll;
constexpr int64_t kMostTiles = INT32_MAX;  // of a launch
constexpr const char *kTooMany = "decode_rows: a launch decodes at most 2^31 tiles of 4096 weights";

// How rows are cut into tiles, a workgroup's share each: several pieces of a long row, or several short rows.
struct Tiling {
  int64_t groups;         // of 8 weights in a row; the last one may be cut short
  bool long_row;          // a row is more than one tile
  Divider tiles_per_row;  // 1 for short rows
  int rows_per_tile;      // 1 for long rows
  Divider row_groups;     // of a tile: a short row's groups, or all that a tile has
};

Tiling tile(int64_t weights) {
  const int64_t groups = (weights + 7) / 8;
  if (groups > kTileGroups) {
    return {groups, true, make_divider((groups + kTileGroups - 1) / kTileGroups), 1, make_divider(kTileGroups)};
  }
  return {groups, false, make_divider(1), static_cast<int>(kTileGroups / groups), make_divider(groups)};
}

ROCFORGE_DEVICE uint32_t divide(uint32_t n, const Divider &by) {
  return (static_cast<uint32_t>(uint64_t{n} * by.magic >> 32) + n) >> by.shift;
}

// A workgroup's tile. 64-bit numbers belong to the whole tile; within it a thread counts in 32 bits.
struct Tile {
  int64_t first_row;
  int64_t piece;  // of a long row
  int limit;      // groups of the tile
};

template <bool kOneRow> ROCFORGE_DEVICE Tile tile_of_workgroup(const Tiling &tiling, int64_t rows) {
  Tile tile{0, static_cast<int64_t>(blockIdx.x), kTileGroups};
  if (!kOneRow && tiling.long_row) {
    tile.first_row = divide(blockIdx.x, tiling.tiles_per_row);
    tile.piece = blockIdx.x - tile.first_row * tiling.tiles_per_row.divisor;
  } else if (!kOneRow) {
    tile = {static_cast<int64_t>(blockIdx.x) * tiling.rows_per_tile, 0,
            tiling.rows_per_tile * static_cast<int>(tiling.groups)};
  }
  const int64_t groups_left =
      kOneRow || tiling.long_row ? tiling.groups - tile.piece * kTileGroups : (rows - tile.first_row) * tiling.groups;
  if (groups_left < tile.limit) tile.limit = static_cast<int>(groups_left);
  return tile;
}

// Where row `row` begins, from map.first; negative when an index points outside of the table. An offset, because the
// compiler follows map.first into global memory, and not a pointer that may be null.
ROCFORGE_DEVICE int64_t row_offset(const RowMap &map, int64_t row) {
  if (map.indices) {
    row = map.wide_indices ? static_cast<const int64_t *>(map.indices)[row]
                           : static_cast<const int32_t *>(map.indices)[row];
    if (row < 0 || row >= map.table_rows) return -1;
  }
  if (map.dims == 1) return row * map.strides[0];
  int64_t offset = 0;
  auto rest = static_cast<uint32_t>(row);
  for (int dim = map.dims - 1; dim > 0; --dim) {
    const uint32_t quotient = divide(rest, map.sizes[dim]);
    offset += (rest - quotient * map.sizes[dim].divisor) * map.strides[dim];
    rest = quotient;
  }
  return offset + rest * map.strides[0];
}

// Weights 8 * group .. of a row that has `weights` of them; what lies behind the row's end is not read.
template <class Format>
ROCFORGE_DEVICE void decode_group(const uint8_t *row, uint32_t group, int64_t weights, float (&values)[8]) {
  const auto *const blocks = reinterpret_cast<const typename Format::Block *>(row);
  if (!Format::is_plain || 8 * group + 8 <= weights) {
    formats::decode8<Format>(blocks, static_cast<int64_t>(group), values);
  } else if constexpr (Format::is_plain) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (8 * group + i < weights) values[i] = Format::value(blocks[8 * group + i]);
    }
  }
}

// Stores the 8 values of group `i` of a tile of `limit` groups at `out`. All lanes of a wave call this.
template <class Out> ROCFORGE_DEVICE void store8(Out *out, const float (&values)[8], int i, int limit) {
  if (i < limit) store_streaming(out, convert<Out>(values));
}

// Two lanes exchange halves, so that each store instruction writes 32 neighbouring bytes: first the two halves of the
// even lane's group, then those of the odd lane's. A tile's groups lie side by side in the output.
ROCFORGE_DEVICE void store8(float *out, const float (&values)[8], int i, int limit) {
  const bool odd = i & 1;
  Vec<float, 4> given, first, second;
#pragma unroll
  for (int j = 0; j < 4; ++j) given[j] = odd ? values[j] : values[4 + j];
  const Vec<float, 4> taken = shuffle_xor(given, 1);
#pragma unroll
  for (int j = 0; j < 4; ++j) {  // element by element: a choice between arrays would put them in memory
    first[j] = odd ? taken[j] : values[j];
    second[j] = odd ? values[4 + j] : taken[j];
  }
  const int even = i & ~1;
  float *const pair = out - 8 * (i - even);  // the even lane's group, the odd lane's behind it
  if (even < limit) store_streaming(pair + (odd ? 4 : 0), first);
  if (even + 1 < limit) store_streaming(pair + (odd ? 12 : 8), second);
}

// kOneRow: all weights are one row that begins at map.first, the common case and the one without index arithmetic.
template <class Format, class Out, bool kOneRow>
__global__ void __launch_bounds__(kThreads)
    decode_rows_kernel(const RowMap map, const Tiling tiling, Out *__restrict__ out, int64_t rows, int64_t weights) {
  constexpr int64_t kPieceBytes = kTileGroups * 8 / Format::block_size * sizeof(typename Format::Block);
  const Tile tile = tile_of_workgroup<kOneRow>(tiling, rows);
  const int64_t weights_left = weights - tile.piece * kTileGroups * 8;  // of a row, from this piece on
  const uint8_t *const piece = map.first + tile.piece * kPieceBytes;
  Out *const tile_out = out + tile.first_row * weights + tile.piece * kTileGroups * 8;

  float values[kUnroll][8] = {};
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    // Threads past the end decode the last group again: without a branch, the loads of all groups are under way at
    // once.
    const int last = tile.limit - 1, wanted = u * kThreads + threadIdx.x;
    const int i = wanted < last ? wanted : last;
    const uint32_t row = kOneRow || tiling.long_row ? 0 : divide(i, tiling.row_groups);
    const int64_t offset = kOneRow ? 0 : row_offset(map, tile.first_row + row);
    const uint32_t group = i - row * tiling.row_groups.divisor;
    decode_group<Format>(piece + (offset < 0 ? 0 : offset), group, weights_left, values[u]);
#pragma unroll
    for (float &value : values[u]) value = offset < 0 ? __builtin_nanf("") : value;
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int i = u * kThreads + threadIdx.x;
    if (!Format::is_plain || weights % 8 == 0) {
      store8(tile_out + 8 * i, values[u], i, tile.limit);
    } else if (i < tile.limit) {  // rows of plain values need not keep the output aligned
      const uint32_t row = kOneRow || tiling.long_row ? 0 : divide(i, tiling.row_groups);
      const uint32_t group = i - row * tiling.row_groups.divisor;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if (8 * group + j < weights_left) tile_out[row * weights + 8 * group + j] = from_float<Out>(values[u][j]);
      }
    }
  }
}

template <class Format, class Out> void launch_decode(const DecodeRows &work, void *stream) {
  if (work.weights > kMostTiles * kTileGroups * 8) throw std::runtime_error(kTooMany);
  const Tiling tiling = tile(work.weights);
  const int64_t tiles_of_rows = (work.rows + tiling.rows_per_tile - 1) / tiling.rows_per_tile;
  if (tiles_of_rows > kMostTiles / tiling.tiles_per_row.divisor) throw std::runtime_error(kTooMany);
  const auto tiles = static_cast<unsigned>(tiles_of_rows * tiling.tiles_per_row.divisor);
  const bool one_row = work.rows == 1 && !work.map.indices;
  launch({"decode_rows", dim3(tiles), kThreads, stream},
         one_row ? decode_rows_kernel<Format, Out, true> : decode_rows_kernel<Format, Out, false>, work.map, tiling,
         static_cast<Out *>(work.out), work.rows, work.weights);
}

}  // namespace

void ROCFORGE_DECODE_SHARD(int format, OutType out_type, const DecodeRows &work, void *stream);
void ROCFORGE_DECODE_SHARD(int format, OutType out_type, const DecodeRows &work, void *stream) {
  formats::visit(format, [&](auto f) {
    using Format = decltype(f);
    if constexpr (formats::find(Format::name) % ROCFORGE_SHARDS == ROCFORGE_SHARD) {
      switch (out_type) {
        case OutType::kFloat:
          return launch_decode<Format, float>(work, stream);
        case OutType::kHalf:
          return launch_decode<Format, f16>(work, stream);
        case OutType::kBFloat16:
          return launch_decode<Format, bf16>(work, stream);
      }
    }
  });
}

}  // namespace rocforge::gpu
