// Backward over the query rows: grad_query, and the numbers of each row that the passes over keys and mask need.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include "ops/cpu/attention/forward.h"
#include "ops/cpu/attention/gradients.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

// The saved lse has been rounded to float32. Below this bound that changes P by less than 2e-6 of itself; beyond it,
// and for float64, maximum and sum are computed again.
constexpr float kExactLse = 64;

template <class Acc> Acc dot(const Acc *a, const Acc *b, int64_t width) {  // width: whole vectors
  Vec<Acc> sums{};
  for (int64_t i = 0; i < width; i += kLanes<Acc>) sums += load(a + i) * load(b + i);
  return sum_of_lanes<Acc>(sums);
}

template <class Acc> struct QueryPass {
  QueryPass(const Attention &a, void *scratch) : arena(scratch), rows(a, arena) {
    value_width = round_up_to_lanes<Acc>(a.value_dim);
    value_scratch = arena.take<Acc>(kKeyTile * a.value_dim);
    grad_out = arena.take<Acc>(kRowTile * a.value_dim);
    grad_scores = arena.take<Acc>(kKeyTile * kRowTile);
    grad_query = arena.take<Acc>(kRowTile * a.head_dim);
    maximum = arena.take<Acc>(kRowTile);
    sum = arena.take<Acc>(kRowTile);
    base = arena.take<Acc>(kRowTile);
    inverse_sum = arena.take<Acc>(kRowTile);
    delta = arena.take<Acc>(kRowTile);
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

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
