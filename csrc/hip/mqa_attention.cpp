#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "hip/attention_launch.h"
#include "hip/stream.h"

namespace rocforge::gpu {
namespace {

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
  const Lengths lengths(options, a);

  const AttentionPlan plan = plan_attention(a);
  launch_attention(a, plan, out, lse, stream.get());
  if (plan.path != Path::kRows && cu_seqlens_q) launch_attention_orphans(a, stream.get());
  return {out, lse};
}

}  // namespace
}  // namespace rocforge::gpu

TORCH_LIBRARY_IMPL(rocforge, ROCFORGE_GPU_KEY, m) { m.impl("mqa_attention", rocforge::gpu::mqa_attention); }
