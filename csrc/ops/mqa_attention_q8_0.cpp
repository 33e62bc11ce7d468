#include "ops/mqa_attention_q8_0.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <torch/library.h>

namespace rocforge {
namespace {

std::tuple<at::Tensor, at::Tensor> without_gradients(const at::Tensor &query, const at::Tensor &key,
                                                     const at::Tensor &value, const OptionalTensor &attn_mask,
                                                     std::string_view causal, std::optional<double> scale,
                                                     std::optional<int64_t> window, double softcap,
                                                     const OptionalTensor &sinks, const OptionalTensor &alibi_slopes,
                                                     const OptionalTensor &kv_lengths) {
  const auto asks = [](const OptionalTensor &t) { return t && t->defined() && t->requires_grad(); };
  TORCH_CHECK_NOT_IMPLEMENTED(
      !at::GradMode::is_enabled() || !(asks(query) || asks(attn_mask) || asks(sinks) || asks(alibi_slopes)),
      "mqa_attention_q8_0 has no gradients: use mqa_attention on what the blocks decode to, or torch.no_grad()");
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("rocforge::mqa_attention_q8_0", "")
                             .typed<decltype(without_gradients)>();
  const at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(query, key, value, attn_mask, causal, scale, window, softcap, sinks, alibi_slopes, kv_lengths);
}

}  // namespace
}  // namespace rocforge

TORCH_LIBRARY_FRAGMENT(rocforge, m) {
  m.def(
      "mqa_attention_q8_0(Tensor query, Tensor key, Tensor value, *, Tensor? attn_mask=None, str causal=\"none\", "
      "float? scale=None, int? window=None, float softcap=0.0, Tensor? sinks=None, Tensor? alibi_slopes=None, "
      "Tensor? kv_lengths=None) -> (Tensor out, Tensor lse)");
}

TORCH_LIBRARY_IMPL(rocforge, Autograd, m) { m.impl("mqa_attention_q8_0", rocforge::without_gradients); }
