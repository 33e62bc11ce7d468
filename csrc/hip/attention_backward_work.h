// Which rows a workgroup of attention's backward owns, which stream by, and the numbers that go with a query row.
#pragma once

#include "hip/attention_backward_stream.h"
#include "hip/attention_work.h"

namespace rocforge::gpu {

template <class T>
ROCFORGE_DEVICE Source<T> source(const Heads &h, int64_t batch, int64_t head, int64_t row, int dims) {
  return {static_cast<const T *>(h.data) + batch * h.batch + head * h.head + row * h.row, h.row, dims, h.aligned};
}

// Rows `first` .. `first + count - 1` of a sequence; none where count is 0.
struct FixedRows {
  Sequence sequence;
  int64_t first;
  int count;
};

// Tiles of packed sequences: sequence i starts at tile cuts[i] / rows + i.
ROCFORGE_DEVICE FixedRows fixed_rows_of(const Attention &a, bool keys, int64_t batch, int64_t tile, int rows) {
  Sequence sequence = padded_sequence(a, a.cu_seqlens_q ? 0 : batch);
  // Keys past their row's length get a gradient, too: 0.
  int64_t length = keys ? a.keys : a.rows;
  if (a.cu_seqlens_q) {
    const int32_t *const cuts = keys ? a.cu_seqlens_k : a.cu_seqlens_q;
    const auto first_tile_of = [&](int64_t i) { return clamp(cuts[i], 0, length) / rows + i; };
    int64_t low = 0, high = a.sequences;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      if (first_tile_of(middle) <= tile) {
        low = middle;
      } else {
        high = middle;
      }
    }
    sequence = packed_sequence(a, low);
    tile -= first_tile_of(low);
    length = keys ? sequence.rule.keys : sequence.rule.queries;
  }
  const int64_t first = tile * rows, left = first < 0 ? 0 : length - first;
  return {sequence, first, static_cast<int>(clamp(left, 0, rows))};
}
inline int64_t fixed_tiles(const Attention &a, bool keys, int rows) {
  const int64_t length = keys ? a.keys : a.rows;
  return a.cu_seqlens_q ? length / rows + a.sequences : (length + rows - 1) / rows;
}

// What a weight takes of a query row: lse in powers of 2, and delta. A row that sees nothing has weights 0.
using RowTerms = Vec<float, 2>;
ROCFORGE_DEVICE RowTerms row_terms(const AttentionGradients &g, int64_t row, bool valid) {
  const float lse = valid ? g.a.lse[row] : -kInfinity;
  if (lse == -kInfinity) return {{kInfinity, 0}};
  return {{lse * kLog2E, static_cast<const float *>(g.numbers.delta)[row]}};
}

// K: the types and numbers of the kernel. Functions that are called for every tile read the arguments again.
template <class K> class GradientWork {
  using T = typename K::T;
  static constexpr bool kKeys = K::kOwnsKeys;
  static constexpr int kStreamed = K::kTile.streamed;

 public:
  // A pair of streamed tiles: `left` rows from `row` on.
  struct Place {
    int64_t head, row;
    int left;
  };

  // Workgroups are numbered by tile (those with the most to do under a causal rule first), batch row, head and split.
  ROCFORGE_DEVICE GradientWork(const AttentionGradients &g, int splits) : GradientWork(g, splits, Item(g.a, splits)) {}

  Sequence sequence;
  int64_t head;    // of the owned rows
  int split;       // of the streamed pairs
  KeyRange owned;  // rows
  int pairs;

  ROCFORGE_DEVICE int count() const { return static_cast<int>(owned.end - owned.begin); }
  ROCFORGE_DEVICE int64_t first_row() const {
    return owned.begin + (kKeys ? sequence.key_begin : sequence.query_begin);
  }
  // Of the owned rows: those that take part. The others are keys past their row's length.
  ROCFORGE_DEVICE int valid() const {
    return kKeys ? static_cast<int>(clamp(sequence.rule.keys - owned.begin, 0, count())) : count();
  }

  ROCFORGE_DEVICE Place place(int i) const {
    // In 32 bits: a 64-bit division takes a GPU some hundred instructions.
    const uint32_t pair = first_pair_ + i, heads = kKeys ? pair / pairs_of_head_ : 0;
    const int64_t row = seen_.begin + static_cast<int64_t>(pair - heads * pairs_of_head_) * kStreamed;
    const int64_t left = seen_.end - row;
    return {first_head_ + heads, row, left < kStreamed ? static_cast<int>(left) : kStreamed};
  }
  ROCFORGE_DEVICE StreamedRows<T> streamed(const AttentionGradients &arguments, int i) const {
    const AttentionGradients &g = reread(arguments);
    const Attention &a = g.a;
    const Place p = place(i);
    const int64_t row = (kKeys ? sequence.query_begin : sequence.key_begin) + p.row;
    return {source<T>(kKeys ? a.query : a.key, sequence.batch, p.head, row, a.head_dim),
            source<T>(kKeys ? g.grad_out : a.value, sequence.batch, p.head, row, a.value_dim), p.left};
  }
  ROCFORGE_DEVICE Source<T> first_fixed(const AttentionGradients &g) const {
    return source<T>(kKeys ? g.a.key : g.a.query, sequence.batch, head, first_row(), g.a.head_dim);
  }
  ROCFORGE_DEVICE Source<T> second_fixed(const AttentionGradients &g) const {
    return source<T>(kKeys ? g.a.value : g.grad_out, sequence.batch, head, first_row(), g.a.value_dim);
  }

  // Of row r of those owned, when they are queries; and of row r of pair i, when those are.
  ROCFORGE_DEVICE RowTerms own_terms(const AttentionGradients &g, int r) const {
    return row_terms(g, out_row(g.a, sequence, head, owned.begin + (r < count() ? r : 0)), r < count());
  }
  ROCFORGE_DEVICE RowTerms streamed_terms(const AttentionGradients &arguments, int i, int r) const {
    const AttentionGradients &g = reread(arguments);
    const Place p = place(i);
    return row_terms(g, out_row(g.a, sequence, p.head, p.row + (r < p.left ? r : 0)), r < p.left);
  }

  // Whether some row of the pair does not see some key.
  ROCFORGE_DEVICE bool partial(const Place &p) const {
    const AttentionRule &rule = sequence.rule;
    return kKeys ? !rule.all_visible(p.row, p.row + p.left - 1, owned)
                 : p.left < kStreamed || !rule.all_visible(owned.begin, owned.end - 1, {p.row, p.row + kStreamed});
  }

 private:
  struct Item {
    int split;
    int64_t head, batch, tile;
    ROCFORGE_DEVICE Item(const Attention &a, int splits) {
      const auto heads = static_cast<uint32_t>(kKeys ? a.kv_heads : a.kv_heads * a.group);
      const auto batches = static_cast<uint32_t>(a.batch);
      uint32_t item = blockIdx.x;
      split = static_cast<int>(item % splits), item /= splits;
      head = item % heads, item /= heads;
      batch = item % batches, item /= batches;
      tile = kKeys ? item : gridDim.x / splits / heads / batches - 1 - item;
    }
  };

  ROCFORGE_DEVICE GradientWork(const AttentionGradients &g, int splits, const Item &item)
      : GradientWork(g, splits, item, fixed_rows_of(g.a, kKeys, item.batch, item.tile, K::kFixed)) {}
  ROCFORGE_DEVICE GradientWork(const AttentionGradients &g, int splits, const Item &item, const FixedRows &fixed)
      : sequence(fixed.sequence),
        head(item.head),
        split(item.split),
        owned{fixed.first, fixed.first + fixed.count},
        pairs(0),
        seen_(fixed.count > 0 ? seen_by(sequence.rule, owned) : KeyRange{0, 0}),
        first_head_(kKeys ? head * g.a.group : head / g.a.group) {
    pairs_of_head_ = seen_.empty() ? 0 : static_cast<uint32_t>((seen_.end - seen_.begin + kStreamed - 1) / kStreamed);
    const int64_t all_pairs = static_cast<int64_t>(pairs_of_head_) * (kKeys ? g.a.group : 1);
    first_pair_ = static_cast<uint32_t>(all_pairs * split / splits);
    pairs = static_cast<int>(all_pairs * (split + 1) / splits - first_pair_);
  }

  // What streams by: keys that any of the rows sees, or query rows that see any of the keys, of each head.
  static ROCFORGE_DEVICE KeyRange seen_by(const AttentionRule &rule, KeyRange owned) {
    if (!kKeys) return rule.visible(owned.begin, owned.end - 1);
    return owned.begin < rule.keys ? KeyRange{rule.first_row(owned), rule.end_row(owned)} : KeyRange{0, 0};
  }

  KeyRange seen_;
  int64_t first_head_;  // of the streamed rows
  uint32_t pairs_of_head_, first_pair_;
};

}  // namespace rocforge::gpu
