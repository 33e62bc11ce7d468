// Forward: online softmax over tiles of keys (arXiv:1805.02867, arXiv:2205.14135). Scores are kept transposed, a query
// row a lane: S^T = K Q^T needs no copy of K, and softmax no sum across lanes.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include "ops/cpu/attention/few_rows.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

// Query rows against one tile of keys after another: scores, and softmax's running maximum and sum.
template <class Acc> class RowPass {
 public:
  RowPass(const Attention &a, Arena &arena)
      : a_(a),
        rule_(a),
        terms_(arena),
        key_scratch_(arena.take<Acc>(kKeyTile * a.head_dim)),
        query_(arena.take<Acc>(kRowTile * a.head_dim)),
        scores_(arena.take<Acc>(kKeyTile * kRowTile)),
        bias_(arena.take<Acc>(a.mask.data ? kKeyTile * kRowTile : 0)),
        shrink_(arena.take<Acc>(kRowTile)) {}

  void set_rows(const RowTile &tile) {
    tile_ = tile;
    padded_ = round_up_to_lanes<Acc>(tile.rows);
    terms_.set_rows(a_, tile);
    load_transposed(a_.query, a_.head_dim, query_);
  }

  // A tensor's rows of the tile as columns of [width, padded()], zeros in the unused ones.
  void load_transposed(const View &view, int64_t width, Acc *out) const {
    for (int64_t i = 0; i < width; ++i) {
      for (int64_t r = tile_.rows; r < padded_; ++r) out[i * padded_ + r] = 0;
    }
    for (int r = 0; r < tile_.rows; ++r) load_row_transposed(view.type, row(view, r), width, out + r, padded_);
  }

  char *row(const View &view, int r) const { return view.at(tile_.sequence->batch, head(r), query(r)); }
  int64_t head(int r) const { return head_of(a_, tile_, r); }
  int64_t query(int r) const { return query_of(a_, tile_, r); }
  // Position of the row's numbers in [batch, query_heads, query_length].
  int64_t number(int r) const { return a_.number(tile_.sequence->batch, head(r), query(r)); }

  KeyRange visible() const {
    const int64_t group = a_.group();
    return tile_.sequence->rule.visible(tile_.begin / group, (tile_.begin + tile_.rows - 1) / group);
  }

  // Scores of a tile of keys into scores(); false when the mask hides the whole of it.
  bool score(KeyRange keys) {
    if (a_.mask.data && !load_bias(a_, tile_, keys, bias_, 1, padded_)) return false;
    keys_ = keys;
    terms_.set_keys(a_, tile_, keys);
    key_ = load_rows(a_.key, tile_.sequence->batch, tile_.kv_head, tile_.sequence->key_begin + keys.begin, key_count(),
                     a_.head_dim, a_.head_dim, key_scratch_);
    multiply(key_.rows(), Right<Acc>{query_, padded_}, Sums<Acc>{scores_, padded_}, key_count(), padded_, a_.head_dim);
    return true;
  }

  // Turns scores() into e^(logit - maximum), and moves the rows' maximum and sum on.
  void online_softmax(Acc *maximum, Acc *sum) {
    for (int64_t r = 0; r < padded_; r += kLanes<Acc>) {
      const Terms<Acc> terms = terms_.lanes(static_cast<int>(r));
      const Vec<Acc> before = load(maximum + r);
      Vec<Acc> largest = before;
      for (int64_t k = 0; k < key_count(); ++k) {
        const Vec<Acc> x = logit(k, r, terms);
        store(scores_ + k * padded_ + r, x);
        largest = x > largest ? x : largest;
      }
      // A row that has seen nothing yet has only logits of -inf: any finite number gives them weight 0.
      const Vec<Acc> base = largest == -kInfinity<Acc> ? Vec<Acc>{} : largest;
      const Vec<Acc> shrink = rule_.weight(before - base);
      Vec<Acc> totals[2] = {};  // of even and of odd keys
      for (int64_t k = 0; k < key_count(); ++k) {
        const Vec<Acc> weight = rule_.weight(load(scores_ + k * padded_ + r) - base);
        store(scores_ + k * padded_ + r, weight);
        totals[k % 2] += weight;
      }
      store(maximum + r, largest);
      store(sum + r, load(sum + r) * shrink + (totals[0] + totals[1]));
      store(shrink_ + r, shrink);
    }
  }

  ROCFORGE_HD Vec<Acc> logit(int64_t key, int64_t r, const Terms<Acc> &terms, Vec<Acc> *slope = nullptr) const {
    const int64_t at = key * padded_ + r;
    return rule_.logit(load(scores_ + at), static_cast<Int<Acc>>(key) + IntVec<Acc>{}, terms, terms_.partial(),
                       a_.mask.data ? bias_ + at : nullptr, slope);
  }

  Left<Acc> weights() const { return {scores_, 1, padded_}; }
  const Acc *shrink() const { return shrink_; }  // what the last online_softmax multiplied earlier sums by
  const Matrix<Acc> &key() const { return key_; }
  const ScoreRule<Acc> &rule() const { return rule_; }
  const RowTerms<Acc> &terms() const { return terms_; }
  const RowTile &tile() const { return tile_; }
  int64_t padded() const { return padded_; }  // rows, rounded up to whole vectors
  int64_t key_count() const { return keys_.end - keys_.begin; }

 private:
  const Attention &a_;
  const ScoreRule<Acc> rule_;
  RowTerms<Acc> terms_;
  Acc *key_scratch_, *query_, *scores_, *bias_, *shrink_;
  RowTile tile_{};
  KeyRange keys_{};
  Matrix<Acc> key_{};
  int64_t padded_ = 0;
};

// The rows' softmax over some keys, before the division by the sum.
template <class Acc> struct Partial {
  Acc *out, *maximum, *sum;  // [rows, width], [rows], [rows], the latter two with room for whole vectors
  int64_t width;             // value_dim, rounded up
  int64_t bytes;

  Partial(const Attention &a, int rows, void *memory) : width(round_up_to_lanes<Acc>(a.value_dim)) {
    Arena arena(memory);
    out = arena.take<Acc>(rows * width);
    maximum = arena.take<Acc>(round_up_to_lanes<Acc>(rows));
    sum = arena.take<Acc>(round_up_to_lanes<Acc>(rows));
    bytes = arena.used();
  }
};

template <class Acc> int64_t partial_size(const Attention &a, int rows) { return Partial<Acc>(a, rows, nullptr).bytes; }

template <class Acc, template <class> class Pass> struct ForwardPass {
  ForwardPass(const Attention &a, void *scratch)
      : arena(scratch),
        rows(a, arena),
        value_scratch(arena.take<Acc>(kKeyTile * round_up_to_lanes<Acc>(a.value_dim))) {}
  Arena arena;
  Pass<Acc> rows;
  Acc *value_scratch;
};

// FewRows needs less.
template <class Acc> int64_t forward_scratch(const Attention &a) {
  return ForwardPass<Acc, RowPass>(a, nullptr).arena.used() + ForwardPass<Acc, FewRows>(a, nullptr).arena.used();
}

template <class Acc, template <class> class Pass>
void forward_rows(const Attention &a, const RowTile &tile, KeyRange keys, const Partial<Acc> &partial, void *scratch) {
  ForwardPass<Acc, Pass> pass(a, scratch);
  Pass<Acc> &rows = pass.rows;
  rows.set_rows(tile);
  for (int64_t i = 0; i < tile.rows * partial.width; ++i) partial.out[i] = 0;
  for (int64_t r = 0; r < round_up_to_lanes<Acc>(tile.rows); ++r) {
    partial.maximum[r] = -kInfinity<Acc>;
    partial.sum[r] = 0;
  }
  for_key_tiles(keys, [&](KeyRange some) {
    if (!rows.score(some)) return;
    rows.online_softmax(partial.maximum, partial.sum);
    const int64_t count = some.end - some.begin;
    const Matrix<Acc> value =
        load_rows(a.value, tile.sequence->batch, tile.kv_head, tile.sequence->key_begin + some.begin, count,
                  a.value_dim, partial.width, pass.value_scratch);
    multiply(rows.weights(), value.right(), Sums<Acc>{partial.out, partial.width}, tile.rows, partial.width, count,
             {true, rows.shrink()});
  });
}

template <class Acc> void forward(const Attention &a, const RowTile &tile, KeyRange keys, void *memory, void *scratch) {
  const Partial<Acc> partial(a, tile.rows, memory);
  if (are_few<Acc>(tile.rows)) {
    forward_rows<Acc, FewRows>(a, tile, keys, partial, scratch);
  } else {
    forward_rows<Acc, RowPass>(a, tile, keys, partial, scratch);
  }
}

// Softmax's denominator with the sink in it, for one row.
template <class Acc> struct Total {
  Acc lse, weight, sink_weight;  // e^(maximum - lse), e^(sink - lse)

  // `maximum` in units of the logit; `sum` of e^(logit - maximum). A row without any key has lse -inf, sink or not.
  Total(Acc maximum, Acc sum, const Acc *sink) {
    const bool saw_nothing = sum == 0;
    const Acc top = sink && *sink > maximum ? *sink : maximum;
    const Acc keys = maximum == top ? 1 : std::exp(maximum - top), sink_part = sink ? std::exp(*sink - top) : 0;
    const Acc denominator = sum * keys + sink_part;
    lse = saw_nothing ? -kInfinity<Acc> : top + std::log(denominator);
    weight = saw_nothing ? 0 : keys / denominator;
    sink_weight = saw_nothing ? 0 : sink_part / denominator;
  }
};

// Merges `count` partial results that follow each other in memory into the first; exp_scale is the rule's.
template <class Acc> void merge(const Attention &a, int rows, char *memory, int count, Acc exp_scale) {
  const Partial<Acc> all(a, rows, memory);
  for (int i = 1; i < count; ++i) {
    const Partial<Acc> next(a, rows, memory + i * all.bytes);
    for (int r = 0; r < rows; ++r) {
      const Acc before = all.maximum[r], maximum = next.maximum[r] > before ? next.maximum[r] : before;
      const Acc base = maximum == -kInfinity<Acc> ? 0 : maximum;
      const Acc shrink = std::exp((before - base) * exp_scale), weight = std::exp((next.maximum[r] - base) * exp_scale);
      all.maximum[r] = maximum;
      all.sum[r] = all.sum[r] * shrink + next.sum[r] * weight;
      Acc *const out = all.out + r * all.width;
      const Acc *const added = next.out + r * all.width;
      for (int64_t d = 0; d < all.width; ++d) out[d] = out[d] * shrink + added[d] * weight;
    }
  }
}

template <class Acc> void finish(const Attention &a, const RowTile &tile, char *memory, int count) {
  const Acc exp_scale = ScoreRule<Acc>(a).exp_scale();
  merge(a, tile.rows, memory, count, exp_scale);
  const Partial<Acc> all(a, tile.rows, memory);
  const int64_t batch = tile.sequence->batch;
  for (int r = 0; r < tile.rows; ++r) {
    const int64_t head = head_of(a, tile, r), query = query_of(a, tile, r);
    const Acc *const sink = a.sinks ? static_cast<const Acc *>(a.sinks) + head : nullptr;
    const Total<Acc> total(all.maximum[r] * exp_scale, all.sum[r], sink);
    Acc *const out = all.out + r * all.width;
    for (int64_t d = 0; d < a.value_dim; ++d) out[d] *= total.weight;
    store_row(out, a.out.type, a.out.at(batch, head, query), a.value_dim);
    a.lse[a.number(batch, head, query)] = static_cast<float>(total.lse);
  }
}

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
