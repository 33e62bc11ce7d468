// Which attention kernel runs: no device code, but it asks the device.
#include <utility>

#include "hip/gpu.h"
// gpu.h first.
#include "hip/attention.h"
#include "hip/tiles.h"

namespace rocforge::gpu {

namespace {

// The head size that kernels exist for.
int padded_dim(const Attention &a) {
  const int dim = a.head_dim > a.value_dim ? a.head_dim : a.value_dim;
  return dim <= 64 ? 64 : dim <= 128 ? 128 : 256;
}

template <int... shards>
void launch_any(std::integer_sequence<int, shards...>, const Attention &a, Path path, const Splits &splits,
                void *stream) {
  (launch_attention_shard<shards>(a, path, padded_dim(a), splits, stream) || ...);
}

int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

}  // namespace

AttentionPlan plan_attention(const Attention &a) {
  const DeviceProperties device = device_properties();
  const int dim = padded_dim(a);
  const bool half = a.type == Element::kHalf || a.type == Element::kBFloat16;
  constexpr int64_t kMostStride = 1 << 25;  // the offsets within a tile have 32 bits
  const bool fits = a.head_dim <= 256 && a.value_dim <= 256 && a.value_dim % 8 == 0 &&
                    prefill_tile(device.arch, dim).waves() > 0 && a.key.row < kMostStride && a.value.row < kMostStride;
  if (!half || !fits) return {Path::kRows, 1};

  constexpr int kMostTiles = 2;  // of decode: each of them reads all keys
  const AttentionTile decode = decode_tile(device.arch, dim);
  const int64_t rows = a.rows * a.group;
  const Path path =
      !a.cu_seqlens_q && rows <= kMostTiles * tile_rows(decode, device.arch) ? Path::kDecode : Path::kPrefill;
  if (a.cu_seqlens_q) return {path, 1};

  // As many splits as give each compute unit one workgroup, as long as each has a few tiles of keys. More of them cost
  // more to combine than they gain.
  constexpr int kLeastTiles = 4;
  const AttentionTile tile = path == Path::kDecode ? decode : prefill_tile(device.arch, dim);
  const int64_t workgroups = a.batch * a.kv_heads * divide_up(rows, tile_rows(tile, device.arch));
  const int64_t room = device.compute_units / workgroups;
  const int64_t most = divide_up(a.keys, kLeastTiles * tile.keys * tile.key_waves);
  int64_t splits = room < most ? room : most;
  splits = splits < kMostSplits ? splits : kMostSplits;
  return {path, static_cast<int>(splits > 1 ? splits : 1)};
}

void launch_attention_tiles(const Attention &a, const AttentionPlan &plan, const Splits &splits, void *stream) {
  launch_any(std::make_integer_sequence<int, kAttentionShards>{}, a, plan.path, splits, stream);
}

}  // namespace rocforge::gpu
