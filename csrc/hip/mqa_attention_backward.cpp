#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "hip/attention_arguments.h"
#include "hip/attention_backward.h"
#include "hip/stream.h"

namespace rocforge::gpu {
namespace {

at::Tensor unit_stride(const at::Tensor &t) { return t.size(3) == 1 || t.stride(3) == 1 ? t : t.contiguous(); }

// grad_mask of the mask's shape: where it is broadcast over queries they are summed in parts, at most `kMostParts` and
// of 16 queries or more, and those, like keys, by PyTorch.
at::Tensor mask_gradient(const AttentionGradients &g, const at::Tensor &mask, void *stream) {
  constexpr int64_t kMostParts = 64;
  const Attention &a = g.a;
  const auto size = [&](int64_t dim) { return dim > mask.dim() ? 1 : mask.size(-dim); };  // dim 1: keys
  const bool all_queries = size(2) != a.rows, all_keys = size(1) != a.keys;
  MaskGradient m{};
  m.wide = all_queries || all_keys;
  m.batches = size(4), m.heads = size(3);
  m.query_parts = all_queries ? std::min(kMostParts, (a.rows + 15) / 16) : 0;
  const at::ScalarType wide = a.type == Element::kDouble ? at::kDouble : at::kFloat;
  at::Tensor sums = at::empty({m.batches, m.heads, all_queries ? m.query_parts : a.rows, a.keys},
                              mask.options().dtype(m.wide ? wide : mask.scalar_type()));
  m.sums = sums.mutable_data_ptr();
  launch_mask_gradient(g, m, stream);
  if (all_queries) sums = sums.sum(2, /*keepdim=*/true);
  if (all_keys) sums = sums.sum(3, /*keepdim=*/true);
  return sums.to(mask.scalar_type()).view(mask.sizes());
}

// Tensors and kernels of dQ, dK and dV; `numbers` are then those of each row.
void query_key_value_gradients(AttentionGradients &g, at::Tensor &numbers, const at::TensorOptions &floats,
                               void *stream) {
  const Attention &a = g.a;
  const int64_t rows = a.batch * a.kv_heads * a.group * a.rows, keys = a.batch * a.kv_heads * a.keys;
  const int count = plan_gradient_splits(g);
  numbers = at::empty({count == 0 ? 3 : 1, rows}, floats);
  const auto number = [&](int i) {
    return static_cast<char *>(numbers.mutable_data_ptr()) + i * rows * numbers.element_size();
  };
  g.numbers.delta = number(0);
  if (count == 0) {
    g.numbers.base = number(1), g.numbers.inverse_sum = number(2);
    return launch_plain_gradients(g, stream);
  }
  launch_delta(g, stream);
  if (count == 1) return launch_gradient_tiles(g, {1, nullptr, nullptr}, stream);
  const at::Tensor partial = at::empty({count * keys * (a.head_dim + a.value_dim)}, floats);
  auto *const sums = partial.mutable_data_ptr<float>();
  const GradientSplits splits{count, sums, sums + count * keys * a.head_dim};
  launch_gradient_tiles(g, splits, stream);
  launch_gradient_sums(g, splits, stream);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> mqa_attention_backward(
    const at::Tensor &grad_out, const OptionalTensor &grad_lse, const at::Tensor &query, const at::Tensor &key,
    const at::Tensor &value, const at::Tensor &out, const at::Tensor &lse, const OptionalTensor &attn_mask,
    std::string_view causal, std::optional<double> scale, std::optional<int64_t> window, double softcap,
    const OptionalTensor &sinks, const OptionalTensor &alibi_slopes, const OptionalTensor &kv_lengths,
    const OptionalTensor &cu_seqlens_q, const OptionalTensor &cu_seqlens_k, bool wants_mask_gradient) {
  const MqaOptions options{attn_mask, causal,       scale,      window,       softcap,
                           sinks,     alibi_slopes, kv_lengths, cu_seqlens_q, cu_seqlens_k};
  const MqaArgs args = check_mqa_attention(query, key, value, options);
  check_mqa_attention_backward(grad_out, grad_lse, query, value, out, lse, options, wants_mask_gradient);
  AttentionGradients g{};
  Attention &a = g.a;
  a = describe(query, key, value, options, args);

  const DeviceStream stream(query.device());
  // Nothing sees anything; or, packed, rows and keys of no sequence have no tile.
  const bool empty = out.numel() == 0 || key.size(2) == 0;
  const auto gradient = [&](const at::Tensor &t) {
    return empty || cu_seqlens_q ? at::zeros(t.sizes(), t.options()) : at::empty(t.sizes(), t.options());
  };
  at::Tensor grad_query = gradient(query), grad_key = gradient(key), grad_value = gradient(value);
  at::Tensor grad_mask = at::empty({0}, query.options()), grad_sinks = at::empty({0}, query.options());
  if (empty) {
    if (wants_mask_gradient) grad_mask = at::zeros(attn_mask->sizes(), attn_mask->options());
    if (sinks) grad_sinks = at::zeros(sinks->sizes(), sinks->options());
    return {grad_query, grad_key, grad_value, grad_mask, grad_sinks};
  }

  const Lengths lengths(options, a);
  const at::Tensor grad_rows = unit_stride(grad_out), out_rows = out.contiguous(), lse_rows = lse.contiguous();
  const at::Tensor grad_lse_rows = grad_lse ? grad_lse->contiguous() : at::Tensor();
  a.out = const_cast<void *>(out_rows.const_data_ptr());
  a.lse = const_cast<float *>(lse_rows.const_data_ptr<float>());
  g.grad_out = heads(grad_rows);
  g.grad_out.aligned &= heads(out_rows).aligned;
  g.grad_lse = grad_lse ? grad_lse_rows.const_data_ptr<float>() : nullptr;
  g.grad_query = grad_query.mutable_data_ptr();
  g.grad_key = grad_key.mutable_data_ptr();
  g.grad_value = grad_value.mutable_data_ptr();

  at::Tensor numbers;
  const auto floats = query.options().dtype(a.type == Element::kDouble ? at::kDouble : at::kFloat);
  query_key_value_gradients(g, numbers, floats, stream.get());
  if (wants_mask_gradient) grad_mask = mask_gradient(g, *attn_mask, stream.get());
  if (sinks) {
    grad_sinks = at::empty(sinks->sizes(), sinks->options());
    launch_sink_gradient(g, grad_sinks.mutable_data_ptr(), stream.get());
  }
  return {grad_query, grad_key, grad_value, grad_mask, grad_sinks};
}

}  // namespace
}  // namespace rocforge::gpu

TORCH_LIBRARY_IMPL(rocforge, ROCFORGE_GPU_KEY, m) {
  m.impl("mqa_attention_backward", rocforge::gpu::mqa_attention_backward);
}
