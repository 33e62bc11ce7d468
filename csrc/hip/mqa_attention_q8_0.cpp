#include "ops/mqa_attention_q8_0.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "hip/attention_launch.h"
#include "hip/stream.h"

namespace rocforge::gpu {
namespace {

using Result = std::tuple<at::Tensor, at::Tensor>;

// Every value at once: for many rows, each of which would decode it again, and for what the matrix cores do not take.
Result attend_decoded(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value, const MqaOptions &o) {
  static const auto dequantize =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("rocforge::dequantize", "")
          .typed<at::Tensor(const at::Tensor &, c10::string_view, std::optional<at::ScalarType>)>();
  static const auto attention =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("rocforge::mqa_attention", "")
          .typed<Result(const at::Tensor &, const at::Tensor &, const at::Tensor &, const OptionalTensor &,
                        std::string_view, std::optional<double>, std::optional<int64_t>, double, const OptionalTensor &,
                        const OptionalTensor &, const OptionalTensor &, const OptionalTensor &,
                        const OptionalTensor &)>();
  const auto decoded = [&](const at::Tensor &blocks) {
    return dequantize.call(blocks, formats::Q8_0::name, query.scalar_type());
  };
  return attention.call(query, decoded(key), decoded(value), o.attn_mask, o.causal, o.scale, o.window, o.softcap,
                        o.sinks, o.alibi_slopes, o.kv_lengths, {}, {});
}

// Whether every row begins at an even address, as the blocks' float16 scales want.
bool rows_are_even(const at::Tensor &blocks) {
  auto bits = reinterpret_cast<uintptr_t>(blocks.const_data_ptr());
  for (int dim = 0; dim < 3; ++dim) bits |= blocks.size(dim) > 1 ? blocks.stride(dim) : 0;
  return bits % 2 == 0;
}

Result mqa_attention_q8_0(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value,
                          const OptionalTensor &attn_mask, std::string_view causal, std::optional<double> scale,
                          std::optional<int64_t> window, double softcap, const OptionalTensor &sinks,
                          const OptionalTensor &alibi_slopes, const OptionalTensor &kv_lengths) {
  const OptionalTensor no_cuts;
  const MqaOptions options{attn_mask, causal,       scale,      window,  softcap,
                           sinks,     alibi_slopes, kv_lengths, no_cuts, no_cuts};
  const MqaArgs args = check_mqa_attention_q8_0(query, key, value, options);
  Attention a = describe(query, key, value, options, args);
  a.value_dim = static_cast<int>(q8_0_elements(value));
  const DeviceStream stream(query.device());
  AttentionPlan plan{Path::kRows, 1};
  if (query.numel() > 0 && rows_are_even(key) && rows_are_even(value)) plan = plan_attention(a);
  if (plan.path != Path::kDecode) return attend_decoded(query, key, value, options);
  plan.path = Path::kDecodeBlocks;
  at::Tensor out = at::empty({query.size(0), query.size(1), query.size(2), a.value_dim}, query.options());
  at::Tensor lse = at::empty(out.sizes().slice(0, 3), query.options().dtype(at::kFloat));
  a.out = out.mutable_data_ptr(), a.lse = lse.mutable_data_ptr<float>();
  const Lengths lengths(options, a);
  launch_attention(a, plan, out, lse, stream.get());
  return {out, lse};
}

}  // namespace
}  // namespace rocforge::gpu

TORCH_LIBRARY_IMPL(rocforge, ROCFORGE_GPU_KEY, m) { m.impl("mqa_attention_q8_0", rocforge::gpu::mqa_attention_q8_0); }
