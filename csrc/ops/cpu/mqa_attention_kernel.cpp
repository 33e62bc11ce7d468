#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/cpu/attention_problem.h"

namespace rocforge::cpu {
namespace {

// A tile of rows and some of the keys it sees; the result goes to `partial`, or is finished at once when that is null.
struct Piece {
  const RowTile *tile;
  KeyRange keys;
  char *partial;
};

// The results of a tile whose keys are shared out.
struct Shared {
  const RowTile *tile;
  int64_t offset;  // of its first partial result, in bytes
  int count;
};

// How long a stretch of keys one piece takes. A function of the shapes only, so that the result does not depend on the
// number of threads: few rows on many keys (decoding) are cut up, the rest is parallel enough.
int64_t keys_per_piece(size_t tiles, int64_t keys, int64_t key_tile) {
  constexpr int64_t kAtLeast = 1024, kPieces = 64;
  if (tiles >= kPieces) return std::max<int64_t>(keys, 1);
  const int64_t even = (keys + kPieces - 1) / kPieces;
  return std::max(kAtLeast, (even + key_tile - 1) / key_tile * key_tile);
}

KeyRange visible_keys(const Attention &a, const RowTile &tile) {
  return tile.sequence->rule.visible(tile.begin / a.group(), (tile.begin + tile.rows - 1) / a.group());
}

void run(const AttentionProblem &problem) {
  const Attention &a = problem.attention;
  const AttentionTiles &tiles = *problem.tiles;
  const std::vector<RowTile> rows = problem.row_tiles();
  std::vector<Piece> pieces;
  std::vector<Shared> shared;
  int64_t partial_bytes = 0;
  for (const RowTile &tile : rows) {
    const KeyRange keys = visible_keys(a, tile);
    const int64_t step = keys_per_piece(rows.size(), keys.end - keys.begin, tiles.key_tile);
    const int64_t count = std::max<int64_t>(1, (keys.end - keys.begin + step - 1) / step);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t begin = keys.begin + i * step;
      pieces.push_back({&tile, {begin, std::min(begin + step, keys.end)}, nullptr});
    }
    if (count > 1) shared.push_back({&tile, partial_bytes, static_cast<int>(count)});
    if (count > 1) partial_bytes += count * tiles.partial_size(a, tile.rows);
  }
  const at::DataPtr partials = c10::GetCPUAllocator()->allocate(partial_bytes);
  auto piece = pieces.begin();
  for (const Shared &s : shared) {
    while (piece->tile != s.tile) ++piece;
    for (int i = 0; i < s.count; ++i, ++piece) {
      piece->partial = static_cast<char *>(partials.get()) + s.offset + i * tiles.partial_size(a, s.tile->rows);
    }
  }

  const int64_t own_bytes = tiles.partial_size(a, tiles.row_tile), scratch = own_bytes + tiles.forward_scratch(a);
  const bool small = problem.work() < kSmallWork;
  for_each_item(pieces.size(), small, scratch, [&](int64_t i, void *memory) {
    const Piece &p = pieces[i];
    char *const own = static_cast<char *>(memory);
    tiles.forward(a, *p.tile, p.keys, p.partial ? p.partial : own, own + own_bytes);
    if (!p.partial) tiles.finish(a, *p.tile, own, 1);
  });
  for_each_item(shared.size(), small, 0, [&](int64_t i, void *) {
    tiles.finish(a, *shared[i].tile, static_cast<char *>(partials.get()) + shared[i].offset, shared[i].count);
  });
}

std::tuple<at::Tensor, at::Tensor> mqa_attention(const at::Tensor &query, const at::Tensor &key,
                                                 const at::Tensor &value, const OptionalTensor &attn_mask,
                                                 std::string_view causal, std::optional<double> scale,
                                                 std::optional<int64_t> window, double softcap,
                                                 const OptionalTensor &sinks, const OptionalTensor &alibi_slopes,
                                                 const OptionalTensor &kv_lengths, const OptionalTensor &cu_seqlens_q,
                                                 const OptionalTensor &cu_seqlens_k) {
  AttentionProblem problem(
      query, key, value,
      {attn_mask, causal, scale, window, softcap, sinks, alibi_slopes, kv_lengths, cu_seqlens_q, cu_seqlens_k});
  return attend(problem, query);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> attend(AttentionProblem &problem, const at::Tensor &query) {
  Attention &a = problem.attention;
  at::Tensor out = at::empty({query.size(0), query.size(1), query.size(2), a.value_dim}, query.options());
  at::Tensor lse = at::empty(out.sizes().slice(0, 3), query.options().dtype(at::kFloat));
  a.out = view(out);
  a.lse = lse.mutable_data_ptr<float>();
  run(problem);
  return {out, lse};
}

}  // namespace rocforge::cpu

TORCH_LIBRARY_IMPL(rocforge, CPU, m) { m.impl("mqa_attention", rocforge::cpu::mqa_attention); }
