#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(rocforge, m) {
  m.def(
      "mqa_attention(Tensor query, Tensor key, Tensor value, *, Tensor? attn_mask=None, str causal=\"none\", "
      "float? scale=None, int? window=None, float softcap=0.0, Tensor? sinks=None, Tensor? alibi_slopes=None, "
      "Tensor? kv_lengths=None, Tensor? cu_seqlens_q=None, Tensor? cu_seqlens_k=None) -> (Tensor out, Tensor lse)");
  // Gradients that are not asked for (of a mask) or belong to nothing (of sinks) are empty.
  m.def(
      "mqa_attention_backward(Tensor grad_out, Tensor? grad_lse, Tensor query, Tensor key, Tensor value, Tensor out, "
      "Tensor lse, Tensor? attn_mask, str causal, float? scale, int? window, float softcap, Tensor? sinks, "
      "Tensor? alibi_slopes, Tensor? kv_lengths, Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, bool mask_gradient) -> "
      "(Tensor grad_query, Tensor grad_key, Tensor grad_value, Tensor grad_mask, Tensor grad_sinks)");
}
