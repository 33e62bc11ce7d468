// Forward for fewer query rows than lanes would be worth filling (decoding with few heads a KV head): here a key is a
// lane, and a score a sum across lanes. Does what RowPass does.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include "ops/cpu/attention/scores.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

constexpr int kFewRows = 4;

template <class Acc> ROCFORGE_HD bool are_few(int rows) { return rows <= kFewRows && 4 * rows <= kLanes<Acc>; }

template <class Acc> ROCFORGE_HD Acc sum_of_lanes(Vec<Acc> v) {
  typedef Acc Quarter __attribute__((vector_size(16)));
  Quarter parts[kVectorBytes / 16];
  std::memcpy(parts, &v, sizeof v);
  for (int i = 1; i < kVectorBytes / 16; ++i) parts[0] += parts[i];
  Acc sum = parts[0][0];
  for (int i = 1; i < static_cast<int>(16 / sizeof(Acc)); ++i) sum += parts[0][i];
  return sum;
}

template <class Acc> ROCFORGE_HD Acc largest_of_lanes(Vec<Acc> v) {
  Acc largest = v[0];
  for (int i = 1; i < kLanes<Acc>; ++i) largest = v[i] > largest ? v[i] : largest;
  return largest;
}

template <class Acc> class FewRows {
 public:
  FewRows(const Attention &a, Arena &arena)
      : a_(a),
        rule_(a),
        terms_(arena),
        width_(round_up_to_lanes<Acc>(a.head_dim)),
        key_scratch_(arena.take<Acc>(kKeyTile * width_)),
        query_(arena.take<Acc>(kFewRows * width_)),
        scores_(arena.take<Acc>(kFewRows * kKeyTile)),
        bias_(arena.take<Acc>(a.mask.data ? kFewRows * kKeyTile : 0)),
        shrink_(arena.take<Acc>(kFewRows)) {}

  void set_rows(const RowTile &tile) {
    tile_ = tile;
    terms_.set_rows(a_, tile);
    for (int r = 0; r < tile.rows; ++r) {
      const char *row = a_.query.at(tile.sequence->batch, head_of(a_, tile, r), query_of(a_, tile, r));
      load_row(a_.query.type, row, a_.head_dim, width_, query_ + r * width_);
    }
  }

  bool score(KeyRange keys) {
    if (a_.mask.data && !load_bias(a_, tile_, keys, bias_, kKeyTile, 1)) return false;
    keys_ = keys;
    terms_.set_keys(a_, tile_, keys, key_count() % kLanes<Acc> != 0);
    const Matrix<Acc> key =
        load_rows(a_.key, tile_.sequence->batch, tile_.kv_head, tile_.sequence->key_begin + keys.begin, key_count(),
                  a_.head_dim, width_, key_scratch_);
    int64_t k = 0;
    for (; k + 4 <= key_count(); k += 4) dots<4>(key, k);
    for (; k < key_count(); ++k) dots<1>(key, k);
    return true;
  }

  void online_softmax(Acc *maximum, Acc *sum) {
    for (int r = 0; r < tile_.rows; ++r) {
      const Terms<Acc> terms = terms_.row(r);
      Acc *const scores = scores_ + r * kKeyTile;
      IntVec<Acc> key;
      for (int i = 0; i < kLanes<Acc>; ++i) key[i] = i;
      Vec<Acc> largest = broadcast(maximum[r]);
      for (int64_t k = 0; k < key_count(); k += kLanes<Acc>, key += kLanes<Acc>) {
        const Acc *const bias = a_.mask.data ? bias_ + r * kKeyTile + k : nullptr;
        const Vec<Acc> x = rule_.logit(load(scores + k), key, terms, terms_.partial(), bias);
        store(scores + k, x);
        largest = x > largest ? x : largest;
      }
      const Acc top = largest_of_lanes<Acc>(largest), base = top == -kInfinity<Acc> ? 0 : top;
      Vec<Acc> total{};
      for (int64_t k = 0; k < key_count(); k += kLanes<Acc>) {
        const Vec<Acc> weight = rule_.weight(load(scores + k) - base);
        store(scores + k, weight);
        total += weight;
      }
      shrink_[r] = std::exp((maximum[r] - base) * rule_.exp_scale());
      sum[r] = sum[r] * shrink_[r] + sum_of_lanes<Acc>(total);
      maximum[r] = top;
    }
  }

  Left<Acc> weights() const { return {scores_, kKeyTile, 1}; }
  const Acc *shrink() const { return shrink_; }

 private:
  int64_t key_count() const { return keys_.end - keys_.begin; }

  // Scores of kKeys keys and every row.
  template <int kKeys> void dots(const Matrix<Acc> &key, int64_t k) {
    const Acc *const keys = key.data + k * key.row;
    for (int r = 0; r < tile_.rows; ++r) {
      const Acc *const query = query_ + r * width_;
      Vec<Acc> sums[kKeys] = {};
      for (int64_t d = 0; d < width_; d += kLanes<Acc>) {
#pragma GCC unroll 4
        for (int i = 0; i < kKeys; ++i) sums[i] += load(query + d) * load(keys + i * key.row + d);
      }
#pragma GCC unroll 4
      for (int i = 0; i < kKeys; ++i) scores_[r * kKeyTile + k + i] = sum_of_lanes<Acc>(sums[i]);
    }
  }

  const Attention &a_;
  const ScoreRule<Acc> rule_;
  RowTerms<Acc> terms_;
  int64_t width_;  // head_dim, rounded up to whole vectors
  Acc *key_scratch_, *query_, *scores_, *bias_, *shrink_;
  RowTile tile_{};
  KeyRange keys_{};
};

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
