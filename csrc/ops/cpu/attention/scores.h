// From the product of query and key to the logit that softmax takes, and its derivative: the order of operations of
// mqa_attention, the same in every pass. Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include "ops/cpu/attention/memory.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

constexpr int kRowTile = 64, kKeyTile = 64;

// Of row r of the tile: its head, and its place in the tensor.
ROCFORGE_HD int64_t head_of(const Attention &a, const RowTile &tile, int r) {
  return tile.kv_head * a.group() + (tile.begin + r) % a.group();
}
ROCFORGE_HD int64_t query_of(const Attention &a, const RowTile &tile, int r) {
  return tile.sequence->query_begin + (tile.begin + r) / a.group();
}

template <class Function> ROCFORGE_HD void for_key_tiles(KeyRange keys, Function function) {
  for (int64_t begin = keys.begin; begin < keys.end; begin += kKeyTile) {
    function(KeyRange{begin, begin + kKeyTile < keys.end ? begin + kKeyTile : keys.end});
  }
}

// What the rule needs to know of the rows of one vector, or of one row, broadcast. Keys are counted from the tile's.
template <class Acc> struct Terms {
  IntVec<Acc> first, end;  // keys the row sees
  Vec<Acc> position, slope;
};

// The same for every row of a tile.
template <class Acc> class RowTerms {
 public:
  explicit RowTerms(Arena &arena)
      : first_(arena.take<Int<Acc>>(kRowTile)),
        end_(arena.take<Int<Acc>>(kRowTile)),
        position_(arena.take<Acc>(kRowTile)),
        slope_(arena.take<Acc>(kRowTile)) {}

  void set_rows(const Attention &a, const RowTile &tile) {
    for (int r = 0; r < kRowTile; ++r) {
      slope_[r] = position_[r] = 0;
      first_[r] = end_[r] = 0;  // the unused rows see nothing
    }
    if (!a.alibi_slopes) return;
    const Acc *slopes = static_cast<const Acc *>(a.alibi_slopes) + tile.sequence->batch * a.alibi_batch;
    for (int r = 0; r < tile.rows; ++r) slope_[r] = slopes[head_of(a, tile, r)];
  }

  // `partial`: there are lanes past the last key, which no row may see.
  void set_keys(const Attention &a, const RowTile &tile, KeyRange keys, bool partial = false) {
    const AttentionRule &rule = tile.sequence->rule;
    const int64_t group = a.group(), count = keys.end - keys.begin;
    partial_ = partial || !rule.all_visible(tile.begin / group, (tile.begin + tile.rows - 1) / group, keys);
    if (!partial_ && !a.alibi_slopes) return;
    for (int r = 0; r < tile.rows; ++r) {
      const int64_t query = (tile.begin + r) / group;
      const KeyRange visible = rule.visible(query);
      first_[r] = static_cast<Int<Acc>>(clamp(visible.begin - keys.begin, count));
      end_[r] = static_cast<Int<Acc>>(clamp(visible.end - keys.begin, count));
      position_[r] = static_cast<Acc>(rule.position(query) - keys.begin);
    }
  }

  bool partial() const { return partial_; }  // some row does not see some key of the tile
  Terms<Acc> lanes(int r) const {
    return {load_ints<Acc>(first_ + r), load_ints<Acc>(end_ + r), load(position_ + r), load(slope_ + r)};
  }
  Terms<Acc> row(int r) const {
    return {first_[r] + IntVec<Acc>{}, end_[r] + IntVec<Acc>{}, broadcast(position_[r]), broadcast(slope_[r])};
  }

 private:
  static int64_t clamp(int64_t key, int64_t count) { return key < 0 ? 0 : key > count ? count : key; }

  Int<Acc> *first_, *end_;
  Acc *position_, *slope_;
  bool partial_ = false;
};

template <class Acc> class ScoreRule {
 public:
  explicit ScoreRule(const Attention &a) : softcap_(static_cast<Acc>(a.softcap)), alibi_(a.alibi_slopes) {
    // A score that a scale above 1 is applied to may overflow. Where nothing stands between scale and softmax, such a
    // scale waits for the difference to the largest score.
    const bool added = a.softcap != 0 || a.alibi_slopes || (a.mask.data && a.mask.type != Element::kBool);
    const bool deferred = a.scale > 1 && !added;
    logit_scale_ = static_cast<Acc>(deferred ? 1 : a.scale);
    exp_scale_ = static_cast<Acc>(deferred ? a.scale : 1);
  }

  // Logits of one vector of scores, divided by exp_scale(). `key`: each lane's key, counted from the tile's first.
  // `bias`: what the mask adds, null without one. `slope`: receives the derivative of the softcap when not null.
  ROCFORGE_HD Vec<Acc> logit(Vec<Acc> score, IntVec<Acc> key, const Terms<Acc> &row, bool partial, const Acc *bias,
                             Vec<Acc> *slope = nullptr) const {
    Vec<Acc> x = score * logit_scale_;
    if (softcap_ != 0) {
      const Vec<Acc> capped = tanh(x / softcap_);
      x = softcap_ * capped;
      if (slope) *slope = 1 - capped * capped;
    }
    if (alibi_) {
      const Vec<Acc> distance = row.position - __builtin_convertvector(key, Vec<Acc>);
      x -= row.slope * (distance < 0 ? -distance : distance);
    }
    if (bias) x += load(bias);
    if (partial) x = key >= row.first && key < row.end ? x : broadcast(-kInfinity<Acc>);
    return x;
  }

  Acc exp_scale() const { return exp_scale_; }
  // e^logit of a difference of what logit() returns.
  ROCFORGE_HD Vec<Acc> weight(Vec<Acc> difference) const { return exp(difference * exp_scale_); }

 private:
  Acc logit_scale_, exp_scale_, softcap_;
  bool alibi_;
};

// What the mask adds to each score of a tile, at out[row * row_step + key * key_step]; false when it hides them all.
template <class Acc>
bool load_bias(const Attention &a, const RowTile &tile, KeyRange keys, Acc *out, int64_t row_step, int64_t key_step) {
  bool any = false;
  const int64_t count = keys.end - keys.begin;
  Acc bias[kKeyTile];
  for (int r = 0; r < tile.rows; ++r) {
    const bool same_as_last = r > 0 && a.mask.head == 0 && query_of(a, tile, r) == query_of(a, tile, r - 1);
    if (!same_as_last) {
      const char *row = a.mask.at(tile.sequence->batch, head_of(a, tile, r), query_of(a, tile, r),
                                  tile.sequence->key_begin + keys.begin);
      with_type(a.mask.type, row, [&](const auto *elements) {
        if (a.mask.column == 1) {
          to_numbers(elements, count, bias);
        } else {
          for (int64_t k = 0; k < count; ++k) bias[k] = static_cast<Acc>(number(elements[k * a.mask.column]));
        }
      });
      for (int64_t k = 0; k < count; ++k) any |= bias[k] != -kInfinity<Acc>;
    }
    for (int64_t k = 0; k < count; ++k) out[r * row_step + k * key_step] = bias[k];
  }
  return any;
}

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
