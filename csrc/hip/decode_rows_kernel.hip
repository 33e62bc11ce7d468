// One thread decodes 32 neighbouring weights, most often of one scale, and stores 64 or 128 bytes.
//
// This file is compiled once for each ROCFORGE_SHARD below kDecodeShards: even shards for blocks that begin at
// multiples of their alignment, odd ones for blocks at any byte; and in each pair of shards every (kDecodeShards /
// 2)-th format, so that compilers work on all of them at once.
#if ROCFORGE_SHARD % 2 == 0
  #define ROCFORGE_ALIGNED_BLOCKS  // for gpu.h
#endif
#include "hip/gpu.h"
// gpu.h first: it says what the formats' functions are on this device.
#include "formats/registry.h"
#include "hip/decode_rows.h"
#include "hip/decode_stage.h"

namespace rocforge::gpu {
namespace {

static_assert(ROCFORGE_SHARDS == kDecodeShards, "CMake and decode_rows.h agree");

constexpr int kThreads = 128;
template <class Format> constexpr int kTileGroups = kThreads * kThreadGroups<Format>;
constexpr int64_t kMostTiles = INT32_MAX;  // of a launch

// How rows are cut into tiles, a workgroup's share each: several pieces of a long row, or several short rows.
struct Tiling {
  int64_t groups;         // of 8 weights in a row; the last one may be cut short
  bool long_row;          // a row is more than one tile
  Divider tiles_per_row;  // 1 for short rows
  int rows_per_tile;      // 1 for long rows
  Divider row_groups;     // of a tile: a short row's groups, or all that a tile has
};

Tiling tiling_of(int64_t weights, int tile_groups) {
  const int64_t groups = (weights + 7) / 8;
  if (groups > tile_groups) {
    return {groups, true, make_divider((groups + tile_groups - 1) / tile_groups), 1, make_divider(tile_groups)};
  }
  return {groups, false, make_divider(1), static_cast<int>(tile_groups / groups), make_divider(groups)};
}

// A workgroup's tile. 64-bit numbers belong to the whole tile; within it a thread counts in 32 bits.
struct Tile {
  int64_t first_row;
  int64_t piece;  // of a long row
  int limit;      // groups of the tile
};

template <class Format, bool kOneRow> ROCFORGE_DEVICE Tile tile_of_workgroup(const Tiling &tiling, int64_t rows) {
  Tile tile{0, static_cast<int64_t>(blockIdx.x), kTileGroups<Format>};
  if (!kOneRow && tiling.long_row) {
    tile.first_row = divide(blockIdx.x, tiling.tiles_per_row);
    tile.piece = blockIdx.x - tile.first_row * tiling.tiles_per_row.divisor;
  } else if (!kOneRow) {
    tile = {static_cast<int64_t>(blockIdx.x) * tiling.rows_per_tile, 0,
            tiling.rows_per_tile * static_cast<int>(tiling.groups)};
  }
  const int64_t groups_left = kOneRow || tiling.long_row ? tiling.groups - tile.piece * kTileGroups<Format>
                                                         : (rows - tile.first_row) * tiling.groups;
  if (groups_left < tile.limit) tile.limit = static_cast<int>(groups_left);
  return tile;
}

ROCFORGE_DEVICE void fill_nan(float (&values)[8]) {
#pragma unroll
  for (float &value : values) value = __builtin_nanf("");
}

// Which of the tile's rows its group `i` is in.
template <bool kOneRow> ROCFORGE_DEVICE uint32_t row_of(const Tiling &tiling, uint32_t i) {
  return kOneRow || tiling.long_row ? 0 : divide(i, tiling.row_groups);
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

// The thread's weights of a tile of blocks.
template <class Format, bool kOneRow>
ROCFORGE_DEVICE void decode_blocks(const RowMap &map, const Tiling &tiling, const Tile &tile, PackedWord *lds,
                                   float (&values)[kThreadGroups<Format>][8]) {
  using Stage = Stage<Format, kOneRow>;
  constexpr int kBlockGroups = Format::block_size / 8, kBlockBytes = Stage::kBlockBytes;
  constexpr int64_t kPieceBytes = kTileGroups<Format> / kBlockGroups * kBlockBytes;
  const uint8_t *const piece = map.first + tile.piece * kPieceBytes;
  const int wave_first = wave_id() * Stage::kWaveBlocks, left = tile.limit / kBlockGroups - wave_first;
  const int own = lane_id() / kBlockLanes<Format>, block = own < left ? own : left - 1;  // past the end: the last again
  const typename Format::Block *at;
  int64_t offset = 0;
  if constexpr (kOneRow) {
    const int count = left < Stage::kWaveBlocks ? left : Stage::kWaveBlocks;
    at = Stage::bring(lds, piece + wave_first * kBlockBytes, count) + block;
  } else {
    const uint32_t group = (wave_first + block) * kBlockGroups;
    const uint32_t row = row_of<kOneRow>(tiling, group);
    const uint32_t in_row = (group - row * tiling.row_groups.divisor) / kBlockGroups;
    offset = row_offset(map, tile.first_row + row);
    at = Stage::bring(lds, piece + (offset < 0 ? 0 : offset) + in_row * kBlockBytes, 1);
  }
  const int first = lane_id() % kBlockLanes<Format> * kThreadGroups<Format>;
#pragma unroll
  for (int g = 0; g < kThreadGroups<Format>; ++g) {
    formats::decode8<Format>(*at, first + g, values[g]);
    if (offset < 0) fill_nan(values[g]);
  }
}

// Weights 8 * group .. of a row of plain values that has `weights` of them; what lies behind the row's end is not read.
template <class Format>
ROCFORGE_DEVICE void decode_plain8(const uint8_t *row, uint32_t group, int64_t weights, float (&values)[8]) {
  using Value = typename Format::Block;
  const auto *const eight_of = reinterpret_cast<const Value *>(row) + 8 * group;
  if (8 * group + 8 <= weights) {
    Vec<Value, 8> eight;
    if constexpr (kAligned) {
      eight = load<8>(eight_of);
    } else {
#pragma unroll
      for (int i = 0; i < 8; ++i) eight[i] = eight_of[i];
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = Format::value(eight[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (8 * group + i < weights) values[i] = Format::value(eight_of[i]);
    }
  }
}

// The thread's values of a tile of rows of plain values. Threads past the end decode the last group again: without a
// branch, all loads are under way at once.
template <class Format, bool kOneRow>
ROCFORGE_DEVICE void decode_plain(const RowMap &map, const Tiling &tiling, const Tile &tile, int64_t weights,
                                  float (&values)[kThreadGroups<Format>][8]) {
  constexpr int64_t kPieceBytes = kTileGroups<Format> * 8 * sizeof(typename Format::Block);
#pragma unroll
  for (int g = 0; g < kThreadGroups<Format>; ++g) {
    const int own = kThreadGroups<Format> * threadIdx.x + g;
    const uint32_t i = own < tile.limit ? own : tile.limit - 1, row = row_of<kOneRow>(tiling, i);
    const uint32_t group = kOneRow ? i : i - row * tiling.row_groups.divisor;
    const int64_t offset = kOneRow ? 0 : row_offset(map, tile.first_row + row);
    decode_plain8<Format>(map.first + tile.piece * kPieceBytes + (offset < 0 ? 0 : offset), group, weights, values[g]);
    if (offset < 0) fill_nan(values[g]);
  }
}

// Rows whose weights are no multiple of 8 need not keep the output aligned.
template <class Out, bool kOneRow, int kGroups>
ROCFORGE_DEVICE void store_singly(Out *out, const Tiling &tiling, const Tile &tile, int64_t row_weights,
                                  int64_t weights, const float (&values)[kGroups][8]) {
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    const int i = kGroups * threadIdx.x + g;
    const uint32_t row = row_of<kOneRow>(tiling, i), group = i - row * tiling.row_groups.divisor;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if (i < tile.limit && 8 * group + j < weights) {
        out[row * row_weights + 8 * group + j] = from_float<Out>(values[g][j]);
      }
    }
  }
}

// kOneRow: all weights are one row that begins at map.first, the common case and the one without index arithmetic.
template <class Format, class Out, bool kOneRow>
__global__ void __launch_bounds__(kThreads)
    decode_rows_kernel(const RowMap map, const Tiling tiling, Out *__restrict__ out, int64_t rows, int64_t weights) {
  constexpr int kGroups = kThreadGroups<Format>, kTile = kTileGroups<Format>;
  constexpr int kWaveWords = wave_words<Format, Out, kOneRow>();
  SHARED(PackedWord, lds, [kThreads / kWave * kWaveWords]);
  PackedWord *const own = lds + wave_id() * kWaveWords;  // a wave uses its own part only
  const Tile tile = tile_of_workgroup<Format, kOneRow>(tiling, rows);
  const int wave_first = wave_id() * kWave * kGroups;
  if (wave_first >= tile.limit) return;
  Out *const tile_out = out + tile.first_row * weights + tile.piece * kTile * 8;
  float values[kGroups][8] = {};
  if constexpr (Format::is_plain) {
    const int64_t weights_left = weights - tile.piece * kTile * 8;  // of a row, from this piece on
    decode_plain<Format, kOneRow>(map, tiling, tile, weights_left, values);
    if (weights % 8 != 0) {
      store_singly<Out, kOneRow>(tile_out, tiling, tile, weights, weights_left, values);
      return;
    }
  } else {
    decode_blocks<Format, kOneRow>(map, tiling, tile, own, values);
    syncwave();  // the packed bytes are done with
  }
  store_wave(tile_out + wave_first * 8, own, values, (tile.limit - wave_first) * 8);
}

template <class Format, class Out> void launch_decode(const DecodeRows &work, void *stream) {
  constexpr int64_t kTileWeights = kTileGroups<Format> * 8;
  const Tiling tiling = tiling_of(work.weights, kTileGroups<Format>);
  const int64_t tiles_of_rows = (work.rows + tiling.rows_per_tile - 1) / tiling.rows_per_tile;
  if (work.weights > kMostTiles * kTileWeights || tiles_of_rows > kMostTiles / tiling.tiles_per_row.divisor) {
    throw std::runtime_error("decode_rows: one launch decodes at most 2^31 tiles of " + std::to_string(kTileWeights) +
                             " weights");
  }
  const auto tiles = static_cast<unsigned>(tiles_of_rows * tiling.tiles_per_row.divisor);
  const bool one_row = work.rows == 1 && !work.map.indices;
  // Blocks at any byte are rare: they do without a kernel of their own for one row.
  auto *const kernel =
      kAligned && one_row ? decode_rows_kernel<Format, Out, kAligned> : decode_rows_kernel<Format, Out, false>;
  launch({"decode_rows", dim3(tiles), kThreads, stream}, kernel, work.map, tiling, static_cast<Out *>(work.out),
         work.rows, work.weights);
}

}  // namespace

template <> void decode_shard<ROCFORGE_SHARD>(int format, OutType out_type, const DecodeRows &work, void *stream) {
  formats::visit(format, [&](auto f) {
    using Format = decltype(f);
    if constexpr (formats::find(Format::name) % (kDecodeShards / 2) == ROCFORGE_SHARD / 2) {
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
