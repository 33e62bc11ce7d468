// One thread decodes 16 neighbouring weights, most often of one scale, converts them and stores 32 or 64 bytes.
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
constexpr int kTileGroups = kThreads * 2;  // groups of 8 weights, two a thread
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

// Stores the 16 values of each thread to the tile's output, whose first `limit` groups exist. A thread's values are 32
// or 64 bytes; they go through LDS so that each instruction of a wave stores one piece of memory without gaps. A wave
// uses its own part of LDS only.
template <class Out> ROCFORGE_DEVICE void store_tile(Out *tile, const float (&values)[2][8], int limit) {
  using Words = Vec<uint32_t, 4>;
  constexpr int kChunk = 16 / sizeof(Out);  // values in 16 bytes
  constexpr int kChunks = 16 / kChunk;      // of a thread: 2 or 4
  SHARED(Words, staged, [kThreads * kChunks]);
  // Chunk c lies at position(c): neighbouring lanes meet different banks when they write and when they read.
  const auto position = [](int chunk) { return chunk ^ (chunk >> 3 & (kChunks - 1)); };
  const int lane = lane_id(), wave_first = wave_id() * kWave * kChunks;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    float chunk[kChunk];
#pragma unroll
    for (int j = 0; j < kChunk; ++j) chunk[j] = values[c * kChunk / 8][c * kChunk % 8 + j];
    staged[wave_first + position(lane * kChunks + c)] = bits_as<Words>(convert<Out>(chunk));
  }
  syncwave();
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int chunk = c * kWave + lane, weight = (wave_first + chunk) * kChunk;
    const auto words = bits_as<Vec<Out, kChunk>>(staged[wave_first + position(chunk)]);
    if (weight < 8 * limit) store_streaming(tile + weight, words);
  }
}

// The largest power of two, up to 16, that divides the bytes of a block (of 8 plain values): their lowest bit.
template <class Format> constexpr int kBlockBytes = sizeof(typename Format::Block) * (Format::is_plain ? 8 : 1);
template <class Format> constexpr int kBlockAlign = (kBlockBytes<Format> | 16) & -(kBlockBytes<Format> | 16);

enum class Rows {
  kOne,      // all weights are one row that begins at map.first: the common case, without index arithmetic
  kAligned,  // rows as the map says
  kAny       // the same, with blocks that start at any byte; in the other cases at multiples of kBlockAlign
};

template <class Format, class Out, Rows kRows>
__global__ void __launch_bounds__(kThreads)
    decode_rows_kernel(const RowMap map, const Tiling tiling, Out *__restrict__ out, int64_t rows, int64_t weights) {
  constexpr int64_t kPieceBytes = kTileGroups * 8 / Format::block_size * sizeof(typename Format::Block);
  constexpr bool kOneRow = kRows == Rows::kOne;
  constexpr int kAlign = kRows == Rows::kAny ? 1 : kBlockAlign<Format>;
  const Tile tile = tile_of_workgroup<kOneRow>(tiling, rows);
  const int64_t weights_left = weights - tile.piece * kTileGroups * 8;  // of a row, from this piece on
  Out *const tile_out = out + tile.first_row * weights + tile.piece * kTileGroups * 8;

  // Threads past the end decode the last groups again: without a branch, all loads are under way at once.
  const int last = tile.limit - 1, last_pair = last / 2;
  const uint32_t pair = 2 * (static_cast<int>(threadIdx.x) < last_pair ? threadIdx.x : last_pair);
  float values[2][8] = {};
#pragma unroll
  for (int g = 0; g < 2; ++g) {
    // Rows of blocks have an even number of groups: a pair lies in one row, and most often shares a scale.
    const uint32_t i = Format::is_plain && static_cast<int>(pair + g) > last ? last : pair + g;
    const uint32_t row = kOneRow || tiling.long_row ? 0 : divide(Format::is_plain ? i : pair, tiling.row_groups);
    const uint32_t group = kOneRow ? i : i - row * tiling.row_groups.divisor;
    const int64_t offset = kOneRow ? 0 : row_offset(map, tile.first_row + row);
    const uint8_t *start = map.first + tile.piece * kPieceBytes + (offset < 0 ? 0 : offset);
    if constexpr (kRows != Rows::kAny) {
      start = static_cast<const uint8_t *>(__builtin_assume_aligned(start, kAlign));
    }
    decode_group<Format>(start, group, weights_left, values[g]);
#pragma unroll
    for (float &value : values[g]) value = offset < 0 ? __builtin_nanf("") : value;
  }
  if (!Format::is_plain || weights % 8 == 0) {
    store_tile(tile_out, values, tile.limit);
    return;
  }
#pragma unroll
  for (int g = 0; g < 2; ++g) {  // rows of plain values need not keep the output aligned
    const int i = 2 * threadIdx.x + g;
    const uint32_t row = kOneRow || tiling.long_row ? 0 : divide(i, tiling.row_groups);
    const uint32_t group = i - row * tiling.row_groups.divisor;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if (i < tile.limit && 8 * group + j < weights_left) {
        tile_out[row * weights + 8 * group + j] = from_float<Out>(values[g][j]);
      }
    }
  }
}

template <class Format> bool aligned(const RowMap &map) {
  int64_t bits = reinterpret_cast<uintptr_t>(map.first);
  for (int dim = 0; dim < map.dims; ++dim) bits |= map.strides[dim];
  return bits % kBlockAlign<Format> == 0;
}

template <class Format, class Out> void launch_decode(const DecodeRows &work, void *stream) {
  if (work.weights > kMostTiles * kTileGroups * 8) throw std::runtime_error(kTooMany);
  const Tiling tiling = tile(work.weights);
  const int64_t tiles_of_rows = (work.rows + tiling.rows_per_tile - 1) / tiling.rows_per_tile;
  if (tiles_of_rows > kMostTiles / tiling.tiles_per_row.divisor) throw std::runtime_error(kTooMany);
  const auto tiles = static_cast<unsigned>(tiles_of_rows * tiling.tiles_per_row.divisor);
  const bool one_row = work.rows == 1 && !work.map.indices;
  auto *const kernel = !aligned<Format>(work.map) ? decode_rows_kernel<Format, Out, Rows::kAny>
                       : one_row                  ? decode_rows_kernel<Format, Out, Rows::kOne>
                                                  : decode_rows_kernel<Format, Out, Rows::kAligned>;
  launch({"decode_rows", dim3(tiles), kThreads, stream}, kernel, work.map, tiling, static_cast<Out *>(work.out),
         work.rows, work.weights);
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
