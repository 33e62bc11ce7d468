#include "ops/mqa_attention.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "hip/attention.h"
#include "hip/stream.h"

namespace rocforge::gpu {
namespace {

Element element(const at::Tensor &t) {
  switch (t.scalar_type()) {
    case at::kBool:
      return Element::kBool;
    case at::kHalf:
      return Element::kHalf;
    case at::kBFloat16:
      return Element::kBFloat16;
    case at::kDouble:
      return Element::kDouble;
    default:
      return Element::kFloat;
  }
}

Heads heads(const at::Tensor &t) {
  const int64_t chunk = 16 / t.element_size();
  const auto address = reinterpret_cast<uintptr_t>(t.const_data_ptr());
  bool aligned = address % 16 == 0 && t.size(3) % chunk == 0;
  for (int dim = 0; dim < 3; ++dim) aligned &= t.size(dim) == 1 || t.stride(dim) % chunk == 0;
  return {t.const_data_ptr(), t.stride(0), t.stride(1), t.stride(2), aligned};
}

Attention describe(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value, const MqaOptions &o,
                   const MqaArgs &args) {
  TORCH_CHECK_VALUE(query.size(3) <= INT32_MAX && value.size(3) <= INT32_MAX, "head sizes must be below 2^31");
  Attention a{};
  a.type = element(query);
  a.query = heads(query), a.key = heads(key), a.value = heads(value);
  a.batch = query.size(0), a.kv_heads = key.size(1), a.rows = query.size(2), a.keys = key.size(2);
  a.group = static_cast<int>(query.size(1) / key.size(1));
  a.head_dim = static_cast<int>(query.size(3)), a.value_dim = static_cast<int>(value.size(3));
  a.causal = args.causal, a.window = args.window, a.scale = args.scale, a.softcap = o.softcap;
  if (args.mask.defined()) {
    const at::Tensor &m = args.mask;
    a.mask = {m.const_data_ptr(), element(m), m.stride(0), m.stride(1), m.stride(2), m.stride(3)};
  }
  if (o.sinks) a.sinks = {o.sinks->const_data_ptr(), element(*o.sinks), 0, o.sinks->stride(0)};
  if (args.alibi.defined()) {
    a.alibi = {args.alibi.const_data_ptr(), element(args.alibi), args.alibi.stride(0), args.alibi.stride(1)};
  }
  const bool added = a.softcap != 0 || a.alibi.data || (a.mask.data && a.mask.type != Element::kBool);
  const bool deferred = a.scale > 0 && !added;
  a.logit_scale = deferred ? 1 : a.scale, a.exp_scale = deferred ? a.scale : 1;
  return a;
}

// Contiguous, because kernels take no strides for it; `kept` holds what the pointer points to.
const int32_t *integers(const OptionalTensor &t, at::Tensor &kept) {
  if (!t) return nullptr;
  kept = t->contiguous();
  return kept.const_data_ptr<int32_t>();
}

std::tuple<at::Tensor, at::Tensor> mqa_attention(const at::Tensor &query, const at::Tensor &key,
                                                 const at::Tensor &value, const OptionalTensor &attn_mask,
                                                 std::string_view causal, std::optional<double> scale,
                                                 std::optional<int64_t> window, double softcap,
                                                 const OptionalTensor &sinks, const OptionalTensor &alibi_slopes,
                                                 const OptionalTensor &kv_lengths, const OptionalTensor &cu_seqlens_q,
                                                 const OptionalTensor &cu_seqlens_k) {
  const MqaOptions options{attn_mask, causal,       scale,      window,       softcap,
                           sinks,     alibi_slopes, kv_lengths, cu_seqlens_q, cu_seqlens_k};
  const MqaArgs args = check_mqa_attention(query, key, value, options);
  Attention a = describe(query, key, value, options, args);
  at::Tensor out = at::empty({query.size(0), query.size(1), query.size(2), value.size(3)}, query.options());
  at::Tensor lse = at::empty(out.sizes().slice(0, 3), query.options().dtype(at::kFloat));
  if (out.numel() == 0) return {out, lse};
  a.out = out.mutable_data_ptr(), a.lse = lse.mutable_data_ptr<float>();

  const DeviceStream stream(query.device());
  at::Tensor kept[3];
  a.kv_lengths = integers(kv_lengths, kept[0]);
  a.cu_seqlens_q = integers(cu_seqlens_q, kept[1]);
  a.cu_seqlens_k = integers(cu_seqlens_k, kept[2]);
  if (cu_seqlens_q) {
    a.sequences = cu_seqlens_q->size(0) - 1;
    TORCH_CHECK_VALUE(a.sequences > 0, "cu_seqlens_q names no sequence, and query has ", a.rows, " rows");
  }

  const AttentionPlan plan = plan_attention(a);
  if (plan.path == Path::kRows) {
    launch_attention_rows(a, stream.get());
  } else if (plan.splits == 1) {
    launch_attention_tiles(a, plan, {1, lse.numel(), nullptr, nullptr, nullptr}, stream.get());
  } else {
    const auto numbers = query.options().dtype(at::kFloat);
    at::Tensor outs = at::empty({plan.splits, out.numel()}, numbers);
    at::Tensor states = at::empty({2, plan.splits, lse.numel()}, numbers);
    auto *const peaks = states.mutable_data_ptr<float>();
    const Splits splits{plan.splits, lse.numel(), outs.mutable_data_ptr<float>(), peaks,
                        peaks + plan.splits * lse.numel()};
    launch_attention_tiles(a, plan, splits, stream.get());
    launch_attention_combine(a, splits, stream.get());
  }
  return {out, lse};
}

}  // namespace
}  // namespace rocforge::gpu

TORCH_LIBRARY_IMPL(rocforge, ROCFORGE_GPU_KEY, m) { m.impl("mqa_attention", rocforge::gpu::mqa_attention); }
