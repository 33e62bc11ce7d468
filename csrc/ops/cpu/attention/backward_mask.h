// Backward over an additive mask, summed where the mask is broadcast.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include "ops/cpu/attention/backward_keys.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

template <class Acc> struct MaskGradients {
  MaskGradients(const Attention &a, void *scratch)
      : arena(scratch), keys(a, arena), sums(arena.take<Acc>(a.group() * a.mask_queries() * kKeyTile)) {}
  Arena arena;
  KeyPass<Acc> keys;
  Acc *sums;  // [heads, queries, kKeyTile] of the mask, one where it is broadcast
};

template <class Acc> void backward_mask(const Attention &a, const MaskTile &tile, void *scratch) {
  MaskGradients<Acc> pass(a, scratch);
  const int64_t group = a.group();
  const int64_t heads = a.grad_mask.head ? group : 1, queries = a.grad_mask.row ? tile.query_end - tile.query_begin : 1;
  for (int64_t i = 0; i < heads * queries * kKeyTile; ++i) pass.sums[i] = 0;
  for (int64_t s = 0; s < tile.sequence_count; ++s) {
    const Sequence &sequence = tile.sequences[s];
    KeyRange keys = tile.keys;
    if (keys.end > sequence.rule.keys) keys.end = sequence.rule.keys;
    for (int64_t kv_head = tile.kv_head_begin; kv_head < tile.kv_head_end && !keys.empty(); ++kv_head) {
      pass.keys.set_keys({&sequence, kv_head, keys});
      KeyRange rows = pass.keys.rows();
      if (rows.begin < tile.query_begin * group) rows.begin = tile.query_begin * group;
      if (rows.end > tile.query_end * group) rows.end = tile.query_end * group;
      for_row_tiles(sequence, kv_head, rows, [&](const RowTile &row_tile) {
        if (!pass.keys.set_rows(row_tile, false)) return;
        for (int r = 0; r < row_tile.rows; ++r) {
          const int64_t head = heads > 1 ? (row_tile.begin + r) % group : 0;
          const int64_t query = queries > 1 ? (row_tile.begin + r) / group - tile.query_begin : 0;
          Acc *const sums = pass.sums + (head * queries + query) * kKeyTile;
          const Acc *const added = pass.keys.grad_scores() + r * pass.keys.padded();
          for (int64_t k = 0; k < pass.keys.count(); ++k) sums[k] += added[k];
        }
      });
    }
  }
  const Sequence &first = tile.sequences[0];
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t query = 0; query < queries; ++query) {
      char *const out = a.grad_mask.at(first.batch, tile.kv_head_begin * group + head,
                                       first.query_begin + tile.query_begin + query, first.key_begin + tile.keys.begin);
      store_row(pass.sums + (head * queries + query) * kKeyTile, a.grad_mask.type, out,
                tile.keys.end - tile.keys.begin);
    }
  }
}

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
