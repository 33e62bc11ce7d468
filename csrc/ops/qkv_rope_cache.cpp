#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <torch/library.h>

#include <optional>

namespace rocforge {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

// Refuses what has no gradient, and counts the change of the caches as autograd expects of an in-place operator.
at::Tensor without_gradients(at::TensorList qkv, const at::Tensor &key_cache, const at::Tensor &value_cache,
                             const at::Tensor &cache_positions, const OptionalTensor &cos, const OptionalTensor &sin,
                             const OptionalTensor &position_ids, bool interleaved, const OptionalTensor &bias,
                             const OptionalTensor &q_norm, const OptionalTensor &k_norm, double eps, bool ring) {
  const auto asks = [](const OptionalTensor &t) { return t && t->defined() && t->requires_grad(); };
  bool asked =
      asks(key_cache) || asks(value_cache) || asks(cos) || asks(sin) || asks(bias) || asks(q_norm) || asks(k_norm);
  for (const at::Tensor &t : qkv) asked = asked || asks(t);
  TORCH_CHECK_NOT_IMPLEMENTED(!at::GradMode::is_enabled() || !asked,
                              "qkv_rope_cache has no gradients: use the separate operators where they are needed "
                              "(torch's rms_norm, rotary_embedding, mqa_attention), or torch.no_grad()");
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("rocforge::qkv_rope_cache", "")
                             .typed<decltype(without_gradients)>();
  const at::AutoDispatchBelowADInplaceOrView guard;
  at::Tensor query = op.call(qkv, key_cache, value_cache, cache_positions, cos, sin, position_ids, interleaved, bias,
                             q_norm, k_norm, eps, ring);
  for (const at::Tensor &cache : {key_cache, value_cache}) {
    if (!cache.is_inference()) cache.unsafeGetTensorImpl()->bump_version();
  }
  return query;
}

}  // namespace
}  // namespace rocforge

TORCH_LIBRARY_FRAGMENT(rocforge, m) {
  m.def(
      "qkv_rope_cache(Tensor[] qkv, Tensor(a!) key_cache, Tensor(b!) value_cache, Tensor cache_positions, "
      "Tensor? cos=None, Tensor? sin=None, *, Tensor? position_ids=None, bool interleaved=False, Tensor? bias=None, "
      "Tensor? q_norm=None, Tensor? k_norm=None, float eps=1e-06, bool ring=False) -> Tensor");
}

TORCH_LIBRARY_IMPL(rocforge, Autograd, m) { m.impl("qkv_rope_cache", rocforge::without_gradients); }
