#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <numeric>

#include "ops/cpu/attention_problem.h"

namespace rocforge::cpu {
namespace {

std::vector<KeyTile> key_tiles(const AttentionProblem &problem) {
  std::vector<KeyTile> found;
  const int64_t step = problem.tiles->key_tile;
  for (const Sequence &s : problem.sequences) {
    for (int64_t begin = 0; begin < s.rule.keys; begin += step) {
      for (int64_t kv_head = 0; kv_head < problem.attention.kv_heads; ++kv_head) {
        found.push_back({&s, kv_head, {begin, std::min(begin + step, s.rule.keys)}});
      }
    }
  }
  return found;
}

// Each element of the mask belongs to one tile: a tile takes all of a dimension that the mask is broadcast over.
std::vector<MaskTile> mask_tiles(const AttentionProblem &problem, bool packed) {
  std::vector<MaskTile> found;
  const Attention &a = problem.attention;
  const bool all_batches = a.grad_mask.batch == 0 && !packed, all_heads = a.grad_mask.head == 0;
  const int64_t count = problem.sequences.size(), step = problem.tiles->key_tile;
  for (int64_t first = 0; first < count; first += all_batches ? count : 1) {
    const Sequence *const sequences = &problem.sequences[first];
    const int64_t sequence_count = all_batches ? count : 1;
    int64_t keys = 0;
    for (int64_t i = 0; i < sequence_count; ++i) keys = std::max(keys, sequences[i].rule.keys);
    const int64_t queries = sequences->rule.queries;
    const int64_t query_step = a.grad_mask.row == 0 ? std::max<int64_t>(queries, 1) : a.mask_queries();
    for (int64_t kv_head = 0; kv_head < a.kv_heads; kv_head += all_heads ? a.kv_heads : 1) {
      for (int64_t query = 0; query < queries; query += query_step) {
        for (int64_t key = 0; key < keys; key += step) {
          found.push_back({sequences,
                           sequence_count,
                           kv_head,
                           all_heads ? a.kv_heads : kv_head + 1,
                           query,
                           std::min(query + query_step, queries),
                           {key, std::min(key + step, keys)}});
        }
      }
    }
  }
  return found;
}

// grad_mask of the mask's shape; keys that the mask is broadcast over are summed last.
at::Tensor mask_gradient(AttentionProblem &problem, const at::Tensor &mask, bool packed, bool small, int64_t scratch) {
  std::vector<int64_t> shape = mask.sizes().vec();
  const int64_t keys = problem.mask.size(3);
  const bool one_for_all_keys = mask.dim() == 0 || mask.size(-1) != keys;
  if (one_for_all_keys && !shape.empty()) shape.back() = keys;
  if (shape.empty()) shape.push_back(keys);
  const at::Tensor sums =
      at::zeros(shape, mask.options().dtype(one_for_all_keys ? problem.accumulate : mask.scalar_type()));
  View &grad_mask = problem.attention.grad_mask;
  grad_mask = view(sums.expand(problem.mask.sizes()));
  // A dimension of size 1 may be broadcast or not; both give stride 0 or an index of 0.
  const std::vector<MaskTile> tiles = mask_tiles(problem, packed);
  for_each_item(tiles.size(), small, scratch,
                [&](int64_t i, void *memory) { problem.tiles->backward_mask(problem.attention, tiles[i], memory); });
  return one_for_all_keys ? sums.sum(-1).to(mask.scalar_type()).view(mask.sizes()) : sums;
}

// Over the rows of each head in their order, whatever the number of threads: [batch, heads, rows] to [heads].
template <class Acc> void sum_rows(const at::Tensor &rows, at::Tensor &sums) {
  const auto *const values = rows.const_data_ptr<Acc>();
  auto *const out = sums.mutable_data_ptr<Acc>();
  const int64_t batch = rows.size(0), heads = rows.size(1), length = rows.size(2);
  for (int64_t head = 0; head < heads; ++head) {
    out[head] = 0;
    for (int64_t b = 0; b < batch; ++b) {
      const Acc *const row = values + (b * heads + head) * length;
      out[head] += std::accumulate(row, row + length, Acc{0});
    }
  }
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> mqa_attention_backward(
    const at::Tensor &grad_out, const OptionalTensor &grad_lse, const at::Tensor &query, const at::Tensor &key,
    const at::Tensor &value, const at::Tensor &out, const at::Tensor &lse, const OptionalTensor &attn_mask,
    std::string_view causal, std::optional<double> scale, std::optional<int64_t> window, double softcap,
    const OptionalTensor &sinks, const OptionalTensor &alibi_slopes, const OptionalTensor &kv_lengths,
    const OptionalTensor &cu_seqlens_q, const OptionalTensor &cu_seqlens_k, bool wants_mask_gradient) {
  const MqaOptions options{attn_mask, causal,       scale,      window,       softcap,
                           sinks,     alibi_slopes, kv_lengths, cu_seqlens_q, cu_seqlens_k};
  AttentionProblem problem(query, key, value, options);
  check_mqa_attention_backward(grad_out, grad_lse, query, value, out, lse, options, wants_mask_gradient);

  const at::Tensor grad_rows = grad_out.contiguous(), out_rows = out.contiguous(), lse_rows = lse.contiguous();
  const at::Tensor grad_lse_rows = grad_lse ? grad_lse->contiguous() : at::Tensor();
  at::Tensor grad_query = at::empty(query.sizes(), query.options());
  // Keys past their row's valid length get no gradient, and no tile either.
  at::Tensor grad_key = kv_lengths ? at::zeros(key.sizes(), key.options()) : at::empty(key.sizes(), key.options());
  at::Tensor grad_value =
      kv_lengths ? at::zeros(value.sizes(), value.options()) : at::empty(value.sizes(), value.options());
  const at::Tensor numbers =
      at::empty({4, query.size(0), query.size(1), query.size(2)}, query.options().dtype(problem.accumulate));
  Attention &a = problem.attention;
  a.out = view(out_rows);
  a.lse = const_cast<float *>(lse_rows.const_data_ptr<float>());
  a.grad_out = view(grad_rows);
  a.grad_lse = grad_lse ? grad_lse_rows.const_data_ptr<float>() : nullptr;
  a.grad_query = view(grad_query);
  a.grad_key = view(grad_key);
  a.grad_value = view(grad_value);
  a.rows = {numbers[0].mutable_data_ptr(), numbers[1].mutable_data_ptr(), numbers[2].mutable_data_ptr(),
            numbers[3].mutable_data_ptr()};

  const AttentionTiles &tiles = *problem.tiles;
  const int64_t scratch = tiles.backward_scratch(a);
  const bool small = problem.work() < kSmallWork;
  const std::vector<RowTile> rows = problem.row_tiles();
  for_each_item(rows.size(), small, scratch, [&](int64_t i, void *memory) { tiles.backward_rows(a, rows[i], memory); });
  const std::vector<KeyTile> keys = key_tiles(problem);
  for_each_item(keys.size(), small, scratch, [&](int64_t i, void *memory) { tiles.backward_keys(a, keys[i], memory); });

  at::Tensor grad_mask = at::empty({0}, query.options()), grad_sinks = at::empty({0}, query.options());
  if (wants_mask_gradient) {
    grad_mask = mask_gradient(problem, *attn_mask, cu_seqlens_q.has_value(), small, scratch);
  }
  if (sinks) {
    at::Tensor sums = at::empty({query.size(1)}, numbers.options());
    if (problem.accumulate == at::kDouble) {
      sum_rows<double>(numbers[3], sums);
    } else {
      sum_rows<float>(numbers[3], sums);
    }
    grad_sinks = sums.to(sinks->scalar_type());
  }
  return {grad_query, grad_key, grad_value, grad_mask, grad_sinks};
}

}  // namespace
}  // namespace rocforge::cpu

TORCH_LIBRARY_IMPL(rocforge, CPU, m) { m.impl("mqa_attention_backward", rocforge::cpu::mqa_attention_backward); }
