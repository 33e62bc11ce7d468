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

// A workgroup's share: a piece of one long row, or several short rows.
struct Tiling {
  int64_t groups;         // of 8 weights in a row; the last one may be cut short
  int64_t tiles_per_row;  // 1 for short rows
  int rows_per_tile;      // 1 for long rows
  uint64_t row_magic;     // i * row_magic >> 32 is the row of a tile's group i
};

Tiling tile(int64_t weights) {
  const int64_t groups = (weights + 7) / 8;
  if (groups >= kTileGroups) return {groups, (groups + kTileGroups - 1) / kTileGroups, 1, 0};
  // Exact for all i < kTileGroups: the magic number is less than 1 too large, and i * groups < 2^32.
  const uint64_t magic = ((uint64_t{1} << 32) + groups - 1) / groups;
  return {groups, 1, static_cast<int>(kTileGroups / groups), magic};
}

// Where row `row` begins; null when an index points outside of the table.
ROCFORGE_DEVICE const uint8_t *row_start(const RowMap &map, int64_t row) {
  if (map.indices) {
    row = map.wide_indices ? static_cast<const int64_t *>(map.indices)[row]
                           : static_cast<const int32_t *>(map.indices)[row];
    if (row < 0 || row >= map.table_rows) return nullptr;
  }
  const uint8_t *start = map.first;
  for (int dim = map.dims - 1; dim > 0; --dim) {
    start += row % map.sizes[dim] * map.strides[dim];
    row /= map.sizes[dim];
  }
  return start + row * map.strides[0];
}

// Weights 8 * group .. of a row of `weights`; what lies behind the row's end is not read.
template <class Format>
ROCFORGE_DEVICE void decode_group(const uint8_t *row, int64_t group, int64_t weights, float (&values)[8]) {
  const auto *const blocks = reinterpret_cast<const typename Format::Block *>(row);
  if (!row) {
#pragma unroll
    for (float &value : values) value = __builtin_nanf("");
  } else if (!Format::is_plain || 8 * group + 8 <= weights) {
    formats::decode8<Format>(blocks, group, values);
  } else if constexpr (Format::is_plain) {
    for (int i = 0; 8 * group + i < weights; ++i) values[i] = Format::value(blocks[8 * group + i]);
  }
}

// Stores the 8 values of group `i` of a tile of `limit` groups at `out`. All lanes of a wave call this.
template <class Out>
ROCFORGE_DEVICE void store8(Out *out, const float (&values)[8], int i, int limit) {
  if (i < limit) store_streaming(out, convert<Out>(values));
}

// Two lanes exchange halves, so that each store instruction writes 32 neighbouring bytes: first the two halves of the
// even lane's group, then those of the odd lane's. A tile's groups lie side by side in the output.
ROCFORGE_DEVICE void store8(float *out, const float (&values)[8], int i, int limit) {
  const bool odd = i & 1;
  Vec<float, 4> kept, given;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    kept[j] = values[odd ? 4 + j : j];
    given[j] = values[odd ? j : 4 + j];
  }
  const Vec<float, 4> taken = shuffle_xor(given, 1);
  const int even = i & ~1;
  float *const pair = out - 8 * (i - even);  // the even lane's group, the odd lane's behind it
  if (even < limit) store_streaming(pair + (odd ? 4 : 0), odd ? taken : kept);
  if (even + 1 < limit) store_streaming(pair + (odd ? 12 : 8), odd ? kept : taken);
}

template <class Format, class Out>
__global__ void __launch_bounds__(kThreads)
    decode_rows_kernel(const RowMap map, const Tiling tiling, Out *__restrict__ out, int64_t rows, int64_t weights) {
  const int64_t tile = blockIdx.x;
  const bool long_row = tiling.tiles_per_row > 1;
  const int64_t first_row = rows == 1 ? 0 : long_row ? tile / tiling.tiles_per_row : tile * tiling.rows_per_tile;
  const int64_t first_group = (tile - first_row * tiling.tiles_per_row) * (long_row ? kTileGroups : 0);
  const int64_t groups_left = long_row ? tiling.groups - first_group : (rows - first_row) * tiling.groups;
  const int64_t tile_groups = long_row ? kTileGroups : tiling.rows_per_tile * tiling.groups;
  const int limit = static_cast<int>(groups_left < tile_groups ? groups_left : tile_groups);

  float values[kUnroll][8] = {};
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int i = u * kThreads + threadIdx.x;
    if (i >= limit) continue;
    const int64_t row = i * tiling.row_magic >> 32;
    const int64_t group = first_group + i - row * tiling.groups;
    decode_group<Format>(row_start(map, first_row + row), group, weights, values[u]);
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const int i = u * kThreads + threadIdx.x;
    if (!Format::is_plain || weights % 8 == 0) {
      store8(out + first_row * weights + 8 * (first_group + i), values[u], i, limit);
    } else if (i < limit) {  // rows of plain values need not keep the output aligned
      const int64_t row = i * tiling.row_magic >> 32;
      const int64_t group = first_group + i - row * tiling.groups;
      Out *const at = out + (first_row + row) * weights + 8 * group;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if (8 * group + j < weights) at[j] = from_float<Out>(values[u][j]);
      }
    }
  }
}

template <class Format, class Out>
void launch_decode(const DecodeRows &work, void *stream) {
  const Tiling tiling = tile(work.weights);
  const int64_t tiles = (work.rows + tiling.rows_per_tile - 1) / tiling.rows_per_tile * tiling.tiles_per_row;
  if (tiles > INT32_MAX) throw std::runtime_error("decode_rows: more weights than one launch can decode (2^31 tiles)");
  launch({"decode_rows", dim3(static_cast<unsigned>(tiles)), kThreads, stream}, decode_rows_kernel<Format, Out>,
         work.map, tiling, static_cast<Out *>(work.out), work.rows, work.weights);
}

}  // namespace

void ROCFORGE_DECODE_SHARD(int format, OutType out_type, const DecodeRows &work, void *stream);
void ROCFORGE_DECODE_SHARD(int format, OutType out_type, const DecodeRows &work, void *stream) {
  formats::visit(format, [&](auto f) {
    using Format = decltype(f);
    if constexpr (formats::find(Format::name) % ROCFORGE_SHARDS == ROCFORGE_SHARD) {
      switch (out_type) {
        case OutType::kFloat: return launch_decode<Format, float>(work, stream);
        case OutType::kHalf: return launch_decode<Format, f16>(work, stream);
        case OutType::kBFloat16: return launch_decode<Format, bf16>(work, stream);
      }
    }
  });
}

}  // namespace rocforge::gpu
