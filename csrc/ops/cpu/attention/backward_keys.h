// Backward over the keys: grad_key and grad_value.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include "ops/cpu/attention/gradients.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

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

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
