#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include "rocforge/ops.h"

namespace rocforge {
namespace {

// Of the signature Result(Arguments...), in the order of the schema.
template <class Signature> c10::TypedOperatorHandle<Signature> operator_of(const char *name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// What Python registers for autograd is not there in a C++ program: without this a gradient would be lost in silence.
template <class... Tensors> void refuse_gradients(const char *name, const Tensors &...tensors) {
  const auto asks = [](const OptionalTensor &t) { return t && t->defined() && t->requires_grad(); };
  TORCH_CHECK_NOT_IMPLEMENTED(!at::GradMode::is_enabled() || !(asks(tensors) || ...), "rocforge::", name,
                              " has no gradients in C++: use at::NoGradGuard, or detached tensors");
}

}  // namespace

at::Tensor packed(const gguf::Tensor &tensor) {
  std::vector<int64_t> sizes(tensor.ne.rend() - tensor.n_dims, tensor.ne.rend());
  sizes.back() = tensor.row_bytes();
  // The map is copy-on-write, so that even a write through the tensor is sound.
  return at::from_blob(const_cast<uint8_t *>(tensor.data.get()), sizes, [map = tensor.data](void *) {}, at::kByte);
}

at::Tensor dequantize(const at::Tensor &packed, std::string_view format, at::ScalarType dtype) {
  static const auto op = operator_of<at::Tensor(const at::Tensor &, c10::string_view, std::optional<at::ScalarType>)>(
      "rocforge::dequantize");
  return op.call(packed, format, dtype);
}

at::Tensor embedding(const at::Tensor &packed, std::string_view format, const at::Tensor &indices,
                     at::ScalarType dtype) {
  static const auto op =
      operator_of<at::Tensor(const at::Tensor &, c10::string_view, const at::Tensor &, std::optional<at::ScalarType>)>(
          "rocforge::embedding");
  return op.call(packed, format, indices, dtype);
}

at::Tensor linear(const at::Tensor &input, const at::Tensor &packed, std::string_view format,
                  const OptionalTensor &bias) {
  refuse_gradients("linear", input, bias);
  static const auto op =
      operator_of<at::Tensor(const at::Tensor &, const at::Tensor &, c10::string_view, const OptionalTensor &)>(
          "rocforge::linear");
  return op.call(input, packed, format, bias);
}

at::Tensor rotary_embedding(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin, bool interleaved) {
  refuse_gradients("rotary_embedding", x, cos, sin);
  static const auto op = operator_of<at::Tensor(const at::Tensor &, const at::Tensor &, const at::Tensor &, bool)>(
      "rocforge::rotary_embedding");
  return op.call(x, cos, sin, interleaved);
}

at::Tensor qkv_rope_cache(const std::vector<at::Tensor> &qkv, at::Tensor &key_cache, at::Tensor &value_cache,
                          const at::Tensor &cache_positions, const QkvRopeCacheOptions &o) {
  static const auto op =
      operator_of<at::Tensor(at::TensorList, const at::Tensor &, const at::Tensor &, const at::Tensor &,
                             const OptionalTensor &, const OptionalTensor &, const OptionalTensor &, bool,
                             const OptionalTensor &, const OptionalTensor &, const OptionalTensor &, double, bool)>(
          "rocforge::qkv_rope_cache");
  return op.call(qkv, key_cache, value_cache, cache_positions, o.cos, o.sin, o.position_ids, o.interleaved, o.bias,
                 o.q_norm, o.k_norm, o.eps, o.ring);
}

std::tuple<at::Tensor, at::Tensor> mqa_attention(const at::Tensor &query, const at::Tensor &key,
                                                 const at::Tensor &value, const AttentionOptions &o) {
  refuse_gradients("mqa_attention", query, key, value, o.attn_mask, o.sinks, o.alibi_slopes);
  static const auto op = operator_of<std::tuple<at::Tensor, at::Tensor>(
      const at::Tensor &, const at::Tensor &, const at::Tensor &, const OptionalTensor &, c10::string_view,
      std::optional<double>, std::optional<int64_t>, double, const OptionalTensor &, const OptionalTensor &,
      const OptionalTensor &, const OptionalTensor &, const OptionalTensor &)>("rocforge::mqa_attention");
  return op.call(query, key, value, o.attn_mask, o.causal, o.scale, o.window, o.softcap, o.sinks, o.alibi_slopes,
                 o.kv_lengths, o.cu_seqlens_q, o.cu_seqlens_k);
}

}  // namespace rocforge
