// Which kernels make the gradients: no device code, but it asks the device.
#include <utility>

#include "hip/gpu.h"
// gpu.h first.
#include "hip/attention_backward.h"
#include "hip/attention_backward_tiles.h"

namespace rocforge::gpu {
namespace {

// The head size that kernels exist for.
int padded_dim(const Attention &a) {
  const int dim = a.head_dim > a.value_dim ? a.head_dim : a.value_dim;
  return dim <= 64 ? 64 : dim <= 128 ? 128 : 256;
}

template <int... shards>
void launch_any(std::integer_sequence<int, shards...>, const AttentionGradients &g, const GradientSplits &splits,
                void *stream) {
  (launch_gradient_shard<shards>(g, splits, padded_dim(g.a), stream) || ...);
}

int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

}  // namespace

int plan_gradient_splits(const AttentionGradients &g) {
  const Attention &a = g.a;
  const DeviceProperties device = device_properties();
  const int dim = padded_dim(a);
  const Pass pass = keys_in_two_passes(dim) ? Pass::kKey : Pass::kBoth;
  const GradientTile tile = gradient_tile(device.arch, dim, pass);
  constexpr int64_t kMostStride = 1 << 25;  // the offsets within a tile have 32 bits
  bool fits = (a.type == Element::kHalf || a.type == Element::kBFloat16) && tile.waves > 0;
  for (const int size : {a.head_dim, a.value_dim}) fits &= size <= 256 && size % 8 == 0;
  for (const Heads &heads : {a.query, a.key, a.value, g.grad_out}) fits &= heads.row < kMostStride;
  if (!fits) return 0;

  // Where the key/value heads do not fill the device: as many as fill it twice, because under a causal rule the tiles
  // differ, while each split has a few tiles of rows.
  constexpr int kLeastTiles = 8;
  const int64_t rows = a.cu_seqlens_q ? divide_up(a.rows, a.sequences) : a.rows;
  const int64_t tiles = a.batch * a.kv_heads * divide_up(a.keys, fixed_rows(tile, device.arch));
  const int64_t room = static_cast<int64_t>(device.compute_units) * tile.occupancy;
  const int64_t most = divide_up(rows, tile.streamed) * a.group / kLeastTiles;
  const int64_t splits = tiles >= room ? 1 : divide_up(2 * room, tiles > 0 ? tiles : 1);
  return static_cast<int>(splits < most ? splits : most > 1 ? most : 1);
}

void launch_gradient_tiles(const AttentionGradients &g, const GradientSplits &splits, void *stream) {
  launch_any(std::make_integer_sequence<int, kGradientShards>{}, g, splits, stream);
}

}  // namespace rocforge::gpu
