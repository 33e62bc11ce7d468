// The arguments of mqa_attention and of its backward, checked once for every device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string_view>

#include "ops/attention_rule.h"

namespace rocforge {

using OptionalTensor = std::optional<at::Tensor>;

// What the operator and its backward are given beside query, key and value.
struct MqaOptions {
  const OptionalTensor &attn_mask;
  std::string_view causal;
  std::optional<double> scale;
  std::optional<int64_t> window;
  double softcap;
  const OptionalTensor &sinks, &alibi_slopes, &kv_lengths, &cu_seqlens_q, &cu_seqlens_k;
};

struct MqaArgs {
  Causal causal;
  double scale;
  int64_t window;    // 0: none
  at::Tensor mask;   // a view [B, Hq, Lq, Lk] (stride 0 where broadcast), undefined without a mask
  at::Tensor alibi;  // a view [B, Hq], undefined without
  bool packed;       // sequences given by cu_seqlens
};

namespace mqa {

// Batch, heads and lengths.
inline void check_shapes(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value) {
  TORCH_CHECK_VALUE(query.dim() == 4 && key.dim() == 4 && value.dim() == 4,
                    "query, key and value must be [batch, heads, length, head_dim], got ", query.sizes(), ", ",
                    key.sizes(), " and ", value.sizes());
  TORCH_CHECK_VALUE(key.size(0) == query.size(0) && value.size(0) == query.size(0),
                    "query, key and value must have one batch size, got ", query.size(0), ", ", key.size(0), " and ",
                    value.size(0));
  TORCH_CHECK_VALUE(key.size(1) == value.size(1) && key.size(2) == value.size(2),
                    "key and value must have the same heads and length, got ", key.sizes(), " and ", value.sizes());
  TORCH_CHECK_VALUE(key.size(1) > 0 && query.size(1) % key.size(1) == 0,
                    "the query heads must be a multiple of the key/value heads, got ", query.size(1), " and ",
                    key.size(1));
}

inline void check_unit_stride(const at::Tensor &t, const char *name) {
  TORCH_CHECK_VALUE(t.size(3) == 1 || t.stride(3) == 1, name, " must have stride 1 in its last dimension, got strides ",
                    t.strides(), ": call contiguous()");
}

inline void check_tensors(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value) {
  check_shapes(query, key, value);
  TORCH_CHECK_TYPE(query.is_floating_point() && query.element_size() >= 2,
                   "query must be float16, bfloat16, float32 or float64, got ", query.scalar_type());
  TORCH_CHECK_TYPE(key.scalar_type() == query.scalar_type() && value.scalar_type() == query.scalar_type(),
                   "query, key and value must have one dtype, got ", query.scalar_type(), ", ", key.scalar_type(),
                   " and ", value.scalar_type());
  TORCH_CHECK_VALUE(key.size(3) == query.size(3), "query and key must have one head_dim, got ", query.size(3), " and ",
                    key.size(3));
  TORCH_CHECK_VALUE(query.size(3) > 0 && value.size(3) > 0, "head_dim must not be 0, got ", query.size(3), " and ",
                    value.size(3), " (value)");
  check_unit_stride(query, "query");
  check_unit_stride(key, "key");
  check_unit_stride(value, "value");
}

inline void check_device(const at::Tensor &query, const OptionalTensor &t, const char *name) {
  if (!t) return;
  TORCH_CHECK_VALUE(t->device() == query.device(), "all tensors must be on one device: query is on ", query.device(),
                    ", ", name, " on ", t->device());
}

// A dtype in which numbers are given beside the query.
inline void check_numbers(const at::Tensor &query, const at::Tensor &t, const char *name) {
  TORCH_CHECK_TYPE(t.scalar_type() == query.scalar_type() || t.scalar_type() == at::kFloat, name,
                   " must be float32 or of query's dtype (", query.scalar_type(), "), got ", t.scalar_type());
}

inline void check_int32(const at::Tensor &t, const char *name) {
  TORCH_CHECK_TYPE(t.scalar_type() == at::kInt, name, " must be int32, got ", t.scalar_type());
  TORCH_CHECK_VALUE(t.dim() == 1, name, " must have one dimension, got ", t.sizes());
}

inline Causal causal_kind(std::string_view causal) {
  if (causal == "none") return Causal::kNone;
  if (causal == "top_left") return Causal::kTopLeft;
  TORCH_CHECK_VALUE(causal == "bottom_right", "causal must be 'none', 'top_left' or 'bottom_right', got '", causal,
                    "'");
  return Causal::kBottomRight;
}

inline at::Tensor mask_view(const at::Tensor &mask, const at::Tensor &query, const at::Tensor &key) {
  if (mask.scalar_type() != at::kBool) check_numbers(query, mask, "attn_mask, when not bool,");
  const int64_t shape[] = {query.size(0), query.size(1), query.size(2), key.size(2)};
  bool fits = mask.dim() <= 4;
  for (int64_t dim = 1; fits && dim <= mask.dim(); ++dim)
    fits = mask.size(-dim) == 1 || mask.size(-dim) == shape[4 - dim];
  TORCH_CHECK_VALUE(
      fits, "attn_mask of shape ", mask.sizes(),
      " cannot be broadcast to [batch, query heads, query length, key length] = ", at::IntArrayRef(shape));
  return mask.expand(shape);
}

inline at::Tensor alibi_view(const at::Tensor &slopes, const at::Tensor &query) {
  check_numbers(query, slopes, "alibi_slopes");
  const int64_t batch = query.size(0), heads = query.size(1);
  const bool per_head = slopes.dim() == 1 && slopes.size(0) == heads;
  const bool per_row = slopes.dim() == 2 && slopes.size(0) == batch && slopes.size(1) == heads;
  TORCH_CHECK_VALUE(per_head || per_row, "alibi_slopes must be [query heads] or [batch, query heads] (", batch, ", ",
                    heads, "), got ", slopes.sizes());
  return slopes.expand({batch, heads});
}

inline void check_lengths(const at::Tensor &query, const MqaOptions &o) {
  TORCH_CHECK_VALUE(o.cu_seqlens_q.has_value() == o.cu_seqlens_k.has_value(),
                    "cu_seqlens_q and cu_seqlens_k must be given together");
  TORCH_CHECK_VALUE(!(o.kv_lengths && o.cu_seqlens_k),
                    "kv_lengths is for padded batches and cu_seqlens for packed ones: give one of them");
  if (o.kv_lengths) {
    check_int32(*o.kv_lengths, "kv_lengths");
    TORCH_CHECK_VALUE(o.kv_lengths->size(0) == query.size(0), "kv_lengths must hold one length per batch row (",
                      query.size(0), "), got ", o.kv_lengths->size(0));
  }
  if (o.cu_seqlens_q) {
    check_int32(*o.cu_seqlens_q, "cu_seqlens_q");
    check_int32(*o.cu_seqlens_k, "cu_seqlens_k");
    TORCH_CHECK_VALUE(o.cu_seqlens_q->size(0) == o.cu_seqlens_k->size(0) && o.cu_seqlens_q->size(0) > 0,
                      "cu_seqlens_q and cu_seqlens_k must have the same size, one more than there are sequences, got ",
                      o.cu_seqlens_q->size(0), " and ", o.cu_seqlens_k->size(0));
    TORCH_CHECK_VALUE(query.size(0) == 1,
                      "with cu_seqlens the sequences are packed into one batch row, got batch size ", query.size(0));
    TORCH_CHECK_VALUE(o.cu_seqlens_q->size(0) > 1 || query.size(2) == 0,
                      "cu_seqlens_q names no sequence, and query has ", query.size(2), " rows");
  }
}

}  // namespace mqa

// Everything beside query, key and value, whose shapes fit each other, but the values of kv_lengths and cu_seqlens,
// which a GPU's host does not see.
inline MqaArgs check_mqa_options(const at::Tensor &query, const at::Tensor &key, const MqaOptions &o) {
  mqa::check_device(query, o.attn_mask, "attn_mask");
  mqa::check_device(query, o.sinks, "sinks");
  mqa::check_device(query, o.alibi_slopes, "alibi_slopes");
  mqa::check_device(query, o.kv_lengths, "kv_lengths");
  mqa::check_device(query, o.cu_seqlens_q, "cu_seqlens_q");
  mqa::check_device(query, o.cu_seqlens_k, "cu_seqlens_k");
  mqa::check_lengths(query, o);

  MqaArgs args;
  args.causal = mqa::causal_kind(o.causal);
  args.packed = o.cu_seqlens_q.has_value();
  args.scale = o.scale.value_or(1 / std::sqrt(static_cast<double>(query.size(3))));
  TORCH_CHECK_VALUE(std::isfinite(args.scale), "scale must be finite, got ", args.scale);
  TORCH_CHECK_VALUE(o.softcap >= 0 && std::isfinite(o.softcap), "softcap must be positive, or 0 for none, got ",
                    o.softcap);
  TORCH_CHECK_VALUE(o.window.value_or(1) >= 1, "window must be at least 1 (the query's own position), got ", *o.window);
  // A window that wide hides nothing; bounded, it cannot overflow.
  args.window = o.window ? std::min(*o.window, query.size(2) + key.size(2)) : 0;
  if (o.attn_mask) args.mask = mqa::mask_view(*o.attn_mask, query, key);
  if (o.alibi_slopes) args.alibi = mqa::alibi_view(*o.alibi_slopes, query);
  if (o.sinks) {
    mqa::check_numbers(query, *o.sinks, "sinks");
    TORCH_CHECK_VALUE(o.sinks->dim() == 1 && o.sinks->size(0) == query.size(1), "sinks must be [query heads] (",
                      query.size(1), "), got ", o.sinks->sizes());
  }
  return args;
}

inline MqaArgs check_mqa_attention(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value,
                                   const MqaOptions &o) {
  mqa::check_tensors(query, key, value);
  mqa::check_device(query, key, "key");
  mqa::check_device(query, value, "value");
  return check_mqa_options(query, key, o);
}

inline void check_mqa_attention_backward(const at::Tensor &grad_out, const OptionalTensor &grad_lse,
                                         const at::Tensor &query, const at::Tensor &value, const at::Tensor &out,
                                         const at::Tensor &lse, const MqaOptions &o, bool mask_gradient) {
  const int64_t out_shape[] = {query.size(0), query.size(1), query.size(2), value.size(3)};
  const at::IntArrayRef wanted(out_shape), rows = wanted.slice(0, 3);
  TORCH_CHECK_VALUE(out.sizes() == wanted && grad_out.sizes() == wanted, "out and grad_out must be ", wanted, ", got ",
                    out.sizes(), " and ", grad_out.sizes());
  TORCH_CHECK_VALUE(lse.sizes() == rows && (!grad_lse || grad_lse->sizes() == rows), "lse and grad_lse must be ", rows);
  TORCH_CHECK_TYPE(out.scalar_type() == query.scalar_type() && grad_out.scalar_type() == query.scalar_type(),
                   "out and grad_out must have query's dtype, got ", out.scalar_type(), " and ",
                   grad_out.scalar_type());
  TORCH_CHECK_TYPE(lse.scalar_type() == at::kFloat && (!grad_lse || grad_lse->scalar_type() == at::kFloat),
                   "lse and grad_lse must be float32");
  mqa::check_device(query, grad_out, "grad_out");
  mqa::check_device(query, grad_lse, "grad_lse");
  mqa::check_device(query, out, "out");
  mqa::check_device(query, lse, "lse");
  TORCH_CHECK_VALUE(!mask_gradient || (o.attn_mask && o.attn_mask->is_floating_point()),
                    "only a float attn_mask has a gradient");
}

}  // namespace rocforge
