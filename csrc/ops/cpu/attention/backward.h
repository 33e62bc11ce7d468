// Backward. With P = e^(logit - lse), dP = grad_out V^T and delta = grad_out . out - grad_lse of each row:
//     d logit = P (dP - delta)        dV = P^T grad_out        dQ = scale dS K        dK = scale dS^T Q
// where dS is d logit times the softcap's derivative. One pass over the query rows makes dQ and the numbers of each row
// that the other passes need; a pass over the keys makes dK and dV, summing the heads of a group as it goes. Each sum
// is made by one thread in a fixed order. Scores, P and dS stay in the accumulating type. Compiled once per instruction
// set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include <initializer_list>

#include "ops/cpu/attention/forward.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

// The saved lse has been rounded to float32. Below this bound that changes P by less than 2e-6 of itself; beyond it,
// and for float64, maximum and sum are computed again.
constexpr float kExactLse = 64;

template <class Acc> Acc dot(const Acc *a, const Acc *b, int64_t width) {  // width: whole vectors
  Vec<Acc> sums{};
  for (int64_t i = 0; i < width; i += kLanes<Acc>) sums += load(a + i) * load(b + i);
  Acc sum = 0;
  for (int i = 0; i < kLanes<Acc>; ++i) sum += sums[i];
  return sum;
}

// d logit from P's parts; P itself into `weight`.
template <class Acc>
ROCFORGE_HD Vec<Acc> logit_gradient(const ScoreRule<Acc> &rule, Vec<Acc> logit, Vec<Acc> base, Vec<Acc> inverse_sum,
                                    Vec<Acc> grad_weight, Vec<Acc> delta, Vec<Acc> *weight) {
  *weight = rule.weight(logit - base) * inverse_sum;
  return *weight * (grad_weight - delta);
}

// ---- over query rows ----

template <class Acc> struct QueryPass {
  QueryPass(const Attention &a, void *scratch) : arena(scratch), rows(a, arena) {
    value_width = round_up_to_lanes<Acc>(a.value_dim);
    value_scratch = arena.take<Acc>(kKeyTile * a.value_dim);
    grad_out = arena.take<Acc>(kRowTile * a.value_dim);
    grad_scores = arena.take<Acc>(kKeyTile * kRowTile);
    grad_query = arena.take<Acc>(kRowTile * a.head_dim);
    for (Acc **numbers : {&maximum, &sum, &base, &inverse_sum, &delta}) *numbers = arena.take<Acc>(kRowTile);
    row = arena.take<Acc>(a.head_dim > value_width ? a.head_dim : value_width);
    other_row = arena.take<Acc>(value_width);
  }
  Arena arena;
  RowPass<Acc> rows;
  int64_t value_width;
  Acc *value_scratch, *grad_out, *grad_scores, *grad_query;  // grad_out and grad_query transposed: a row a lane
  Acc *maximum, *sum, *base, *inverse_sum, *delta;           // one a row
  Acc *row, *other_row;
};

// Maximum and sum of each row, as forward found them.
template <class Acc> void sum_again(QueryPass<Acc> &pass) {
  for (int64_t r = 0; r < pass.rows.padded(); ++r) {
    pass.maximum[r] = -kInfinity<Acc>;
    pass.sum[r] = 0;
  }
  for_key_tiles(pass.rows.visible(), [&](KeyRange keys) {
    if (pass.rows.score(keys)) pass.rows.online_softmax(pass.maximum, pass.sum);
  });
}

template <class Acc> void row_numbers(const Attention &a, QueryPass<Acc> &pass) {
  const RowTile &tile = pass.rows.tile();
  const int64_t batch = tile.sequence->batch;
  bool exact = sizeof(Acc) == sizeof(float);
  for (int r = 0; r < tile.rows; ++r) {
    const float lse = a.lse[pass.rows.number(r)];
    exact &= std::fabs(lse) < kExactLse || lse == -kInfinity<float>;
  }
  if (!exact) sum_again(pass);
  const Acc exp_scale = pass.rows.rule().exp_scale();
  for (int64_t r = 0; r < pass.rows.padded(); ++r) {
    pass.base[r] = kInfinity<Acc>;  // weight 0, whatever the logit
    pass.inverse_sum[r] = pass.delta[r] = 0;
    if (r >= tile.rows) continue;
    const int64_t head = pass.rows.head(static_cast<int>(r)), query = pass.rows.query(static_cast<int>(r));
    const int64_t at = a.number(batch, head, query);
    const Acc *const sink = a.sinks ? static_cast<const Acc *>(a.sinks) + head : nullptr;
    Acc sink_weight = 0;
    if (a.lse[at] != -kInfinity<float>) {
      load_row(a.grad_out.type, a.grad_out.at(batch, head, query), a.value_dim, pass.value_width, pass.row);
      load_row(a.out.type, a.out.at(batch, head, query), a.value_dim, pass.value_width, pass.other_row);
      pass.delta[r] = dot(pass.row, pass.other_row, pass.value_width) - (a.grad_lse ? a.grad_lse[at] : 0);
      if (exact) {
        pass.base[r] = a.lse[at] / exp_scale;
        pass.inverse_sum[r] = 1;
        sink_weight = sink ? std::exp(*sink - a.lse[at]) : 0;
      } else {
        const Total<Acc> total(pass.maximum[r] * exp_scale, pass.sum[r], sink);
        pass.base[r] = pass.maximum[r];
        pass.inverse_sum[r] = total.weight;
        sink_weight = total.sink_weight;
      }
    }
    static_cast<Acc *>(a.rows.base)[at] = pass.base[r];
    static_cast<Acc *>(a.rows.inverse_sum)[at] = pass.inverse_sum[r];
    static_cast<Acc *>(a.rows.delta)[at] = pass.delta[r];
    if (sink) static_cast<Acc *>(a.rows.sink)[at] = -sink_weight * pass.delta[r];
  }
}

// Scores and grad_scores of a tile to dS, in grad_scores.
template <class Acc> void score_gradients(QueryPass<Acc> &pass) {
  const RowPass<Acc> &rows = pass.rows;
  for (int64_t r = 0; r < rows.padded(); r += kLanes<Acc>) {
    const Terms<Acc> terms = rows.terms().lanes(static_cast<int>(r));
    const Vec<Acc> base = load(pass.base + r), inverse_sum = load(pass.inverse_sum + r), delta = load(pass.delta + r);
    for (int64_t k = 0; k < rows.key_count(); ++k) {
      Acc *const at = pass.grad_scores + k * rows.padded() + r;
      Vec<Acc> weight, slope = broadcast(Acc{1});
      const Vec<Acc> logit = rows.logit(k, r, terms, &slope);
      store(at, slope * logit_gradient(rows.rule(), logit, base, inverse_sum, load(at), delta, &weight));
    }
  }
}

template <class Acc> void backward_rows(const Attention &a, const RowTile &tile, void *scratch) {
  QueryPass<Acc> pass(a, scratch);
  RowPass<Acc> &rows = pass.rows;
  rows.set_rows(tile);
  row_numbers(a, pass);
  rows.load_transposed(a.grad_out, a.value_dim, pass.grad_out);
  for (int64_t i = 0; i < a.head_dim * rows.padded(); ++i) pass.grad_query[i] = 0;
  for_key_tiles(rows.visible(), [&](KeyRange keys) {
    if (!rows.score(keys)) return;
    const Matrix<Acc> value =
        load_rows(a.value, tile.sequence->batch, tile.kv_head, tile.sequence->key_begin + keys.begin, rows.key_count(),
                  a.value_dim, a.value_dim, pass.value_scratch);
    multiply(value.rows(), Right<Acc>{pass.grad_out, rows.padded()}, Sums<Acc>{pass.grad_scores, rows.padded()},
             rows.key_count(), rows.padded(), a.value_dim);
    score_gradients(pass);
    multiply(rows.key().columns(), Right<Acc>{pass.grad_scores, rows.padded()},
             Sums<Acc>{pass.grad_query, rows.padded()}, a.head_dim, rows.padded(), rows.key_count(), {true});
  });
  for (int r = 0; r < tile.rows; ++r) {
    for (int64_t d = 0; d < a.head_dim; ++d) {
      pass.row[d] = pass.grad_query[d * rows.padded() + r] * static_cast<Acc>(a.scale);
    }
    store_row(pass.row, a.grad_query.type, rows.row(a.grad_query, r), a.head_dim);
  }
}

// ---- over keys ----

// One tile of keys against tiles of query rows. Here a key is a lane: then grad_key and grad_value need no transposed
// copy of the rows, of which every tile of keys sees many.
template <class Acc> class KeyPass {
 public:
  KeyPass(const Attention &a, Arena &arena)
      : a_(a),
        rule_(a),
        terms_(arena),
        query_width_(round_up_to_lanes<Acc>(a.head_dim)),
        value_width_(round_up_to_lanes<Acc>(a.value_dim)),
        key_(arena.take<Acc>(a.head_dim * kKeyTile)),
        value_(arena.take<Acc>(a.value_dim * kKeyTile)),
        query_(arena.take<Acc>(kRowTile * query_width_)),
        grad_out_(arena.take<Acc>(kRowTile * value_width_)),
        scores_(arena.take<Acc>(kRowTile * kKeyTile)),
        grad_scores_(arena.take<Acc>(kRowTile * kKeyTile)),
        bias_(arena.take<Acc>(a.mask.data ? kRowTile * kKeyTile : 0)),
        base_(arena.take<Acc>(kRowTile)),
        inverse_sum_(arena.take<Acc>(kRowTile)),
        delta_(arena.take<Acc>(kRowTile)) {}

  void set_keys(const KeyTile &tile) {
    tile_ = tile;
    count_ = tile.keys.end - tile.keys.begin;
    padded_ = round_up_to_lanes<Acc>(count_);
    load_transposed(a_.key, a_.head_dim, key_);
    load_transposed(a_.value, a_.value_dim, value_);
  }

  // Rows of the flattened queries that see any of the keys.
  KeyRange rows() const {
    const AttentionRule &rule = tile_.sequence->rule;
    return {rule.first_row(tile_.keys) * a_.group(), rule.end_row(tile_.keys) * a_.group()};
  }

  // P into weights() and, into grad_scores(), dS or what comes before the softcap's derivative. False: all hidden.
  bool set_rows(const RowTile &rows, bool through_softcap) {
    if (a_.mask.data && !load_bias(a_, rows, tile_.keys, bias_, padded_, 1)) return false;
    terms_.set_rows(a_, rows);
    terms_.set_keys(a_, rows, tile_.keys);
    const int64_t batch = rows.sequence->batch;
    for (int r = 0; r < rows.rows; ++r) {
      const int64_t head = head_of(a_, rows, r), query = query_of(a_, rows, r), at = a_.number(batch, head, query);
      load_row(a_.query.type, a_.query.at(batch, head, query), a_.head_dim, query_width_, query_ + r * query_width_);
      load_row(a_.grad_out.type, a_.grad_out.at(batch, head, query), a_.value_dim, value_width_,
               grad_out_ + r * value_width_);
      base_[r] = static_cast<const Acc *>(a_.rows.base)[at];
      inverse_sum_[r] = static_cast<const Acc *>(a_.rows.inverse_sum)[at];
      delta_[r] = static_cast<const Acc *>(a_.rows.delta)[at];
    }
    multiply(Left<Acc>{query_, query_width_, 1}, Right<Acc>{key_, padded_}, Sums<Acc>{scores_, padded_}, rows.rows,
             padded_, a_.head_dim);
    multiply(Left<Acc>{grad_out_, value_width_, 1}, Right<Acc>{value_, padded_}, Sums<Acc>{grad_scores_, padded_},
             rows.rows, padded_, a_.value_dim);
    for (int r = 0; r < rows.rows; ++r) gradients_of_row(r, through_softcap);
    return true;
  }

  const Acc *weights() const { return scores_; }           // [rows, padded()]
  const Acc *grad_scores() const { return grad_scores_; }  // [rows, padded()]
  Right<Acc> query() const { return {query_, query_width_}; }
  Right<Acc> grad_out() const { return {grad_out_, value_width_}; }
  int64_t query_width() const { return query_width_; }  // widths of a row, rounded up
  int64_t value_width() const { return value_width_; }
  int64_t padded() const { return padded_; }
  int64_t count() const { return count_; }

 private:
  void load_transposed(const View &view, int64_t width, Acc *out) const {
    for (int64_t i = 0; i < width; ++i) {
      for (int64_t k = count_; k < padded_; ++k) out[i * padded_ + k] = 0;
    }
    for (int64_t k = 0; k < count_; ++k) {
      const char *row = view.at(tile_.sequence->batch, tile_.kv_head, tile_.sequence->key_begin + tile_.keys.begin + k);
      load_row_transposed(view.type, row, width, out + k, padded_);
    }
  }

  void gradients_of_row(int r, bool through_softcap) {
    const Terms<Acc> terms = terms_.row(r);
    const Vec<Acc> base = broadcast(base_[r]), inverse_sum = broadcast(inverse_sum_[r]), delta = broadcast(delta_[r]);
    IntVec<Acc> key;
    for (int i = 0; i < kLanes<Acc>; ++i) key[i] = i;
    for (int64_t k = 0; k < padded_; k += kLanes<Acc>, key += kLanes<Acc>) {
      const int64_t at = r * padded_ + k;
      Vec<Acc> weight, slope = broadcast(Acc{1});
      const Vec<Acc> logit =
          rule_.logit(load(scores_ + at), key, terms, terms_.partial(), a_.mask.data ? bias_ + at : nullptr, &slope);
      const Vec<Acc> gradient =
          logit_gradient(rule_, logit, base, inverse_sum, load(grad_scores_ + at), delta, &weight);
      store(scores_ + at, weight);
      store(grad_scores_ + at, through_softcap ? slope * gradient : gradient);
    }
  }

  const Attention &a_;
  const ScoreRule<Acc> rule_;
  RowTerms<Acc> terms_;
  int64_t query_width_, value_width_;
  Acc *key_, *value_;  // transposed: a key a lane
  Acc *query_, *grad_out_, *scores_, *grad_scores_, *bias_;
  Acc *base_, *inverse_sum_, *delta_;
  KeyTile tile_{};
  int64_t count_ = 0, padded_ = 0;
};

template <class Function>
void for_row_tiles(const Sequence &sequence, int64_t kv_head, KeyRange rows, Function function) {
  for (int64_t begin = rows.begin; begin < rows.end; begin += kRowTile) {
    const int64_t count = rows.end - begin < kRowTile ? rows.end - begin : kRowTile;
    function(RowTile{&sequence, kv_head, begin, static_cast<int>(count)});
  }
}

template <class Acc> struct KeyGradients {
  KeyGradients(const Attention &a, void *scratch)
      : arena(scratch),
        keys(a, arena),
        grad_key(arena.take<Acc>(kKeyTile * keys.query_width())),
        grad_value(arena.take<Acc>(kKeyTile * keys.value_width())) {}
  Arena arena;
  KeyPass<Acc> keys;
  Acc *grad_key, *grad_value;
};

template <class Acc> void backward_keys(const Attention &a, const KeyTile &tile, void *scratch) {
  KeyGradients<Acc> pass(a, scratch);
  KeyPass<Acc> &keys = pass.keys;
  keys.set_keys(tile);
  for (int64_t i = 0; i < kKeyTile * keys.query_width(); ++i) pass.grad_key[i] = 0;
  for (int64_t i = 0; i < kKeyTile * keys.value_width(); ++i) pass.grad_value[i] = 0;
  for_row_tiles(*tile.sequence, tile.kv_head, keys.rows(), [&](const RowTile &rows) {
    if (!keys.set_rows(rows, true)) return;
    multiply(Left<Acc>{keys.weights(), 1, keys.padded()}, keys.grad_out(),
             Sums<Acc>{pass.grad_value, keys.value_width()}, keys.count(), keys.value_width(), rows.rows, {true});
    multiply(Left<Acc>{keys.grad_scores(), 1, keys.padded()}, keys.query(),
             Sums<Acc>{pass.grad_key, keys.query_width()}, keys.count(), keys.query_width(), rows.rows, {true});
  });
  for (int64_t k = 0; k < keys.count(); ++k) {
    Acc *const grad_key = pass.grad_key + k * keys.query_width();
    for (int64_t d = 0; d < a.head_dim; ++d) grad_key[d] *= static_cast<Acc>(a.scale);
    const int64_t key = tile.sequence->key_begin + tile.keys.begin + k, batch = tile.sequence->batch;
    store_row(grad_key, a.grad_key.type, a.grad_key.at(batch, tile.kv_head, key), a.head_dim);
    store_row(pass.grad_value + k * keys.value_width(), a.grad_value.type, a.grad_value.at(batch, tile.kv_head, key),
              a.value_dim);
  }
}

// ---- over the mask ----

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

template <class Acc> int64_t backward_scratch(const Attention &a) {
  int64_t bytes = QueryPass<Acc>(a, nullptr).arena.used();
  for (const int64_t other :
       {KeyGradients<Acc>(a, nullptr).arena.used(), MaskGradients<Acc>(a, nullptr).arena.used()}) {
    bytes = other > bytes ? other : bytes;
  }
  return bytes;
}

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
