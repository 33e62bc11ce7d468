// The arguments of qkv_rope_cache, checked once for every device.
#pragma once

#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>

#include <optional>

#include "ops/rotary_embedding.h"

namespace rocforge {

struct QkvOptions {
  const std::optional<at::Tensor> &cos, &sin, &position_ids, &bias, &q_norm, &k_norm;
  bool interleaved, ring;
  double eps;
};

// One position for each token: position(b, l) = values[b, l] + l * step.
struct Positions {
  at::Tensor values;  // a view [B, L], int32 or int64
  int64_t step;       // 0, or 1 where only the first position of a batch row is given
};

struct QkvArgs {
  at::Tensor query, key, value;                 // views [B, L, heads, head_dim] of the projection
  at::Tensor query_bias, key_bias, value_bias;  // views [heads, head_dim], undefined without a bias
  at::Tensor q_norm, k_norm;                    // contiguous [head_dim], undefined without a norm
  at::Tensor cos, sin;                // [B, L, width] views (a stride of 0 where broadcast), or [rows, width] tables
  int64_t pairs = 0, angle_step = 1;  // as in RotaryArgs
  Positions cache, angle;             // angle: rows of the tables, undefined where cos and sin are no tables
};

namespace qkv {

inline void check_like(const at::Tensor &x, const at::Tensor &t, const char *name) {
  TORCH_CHECK_VALUE(t.device() == x.device(), "all tensors must be on one device: qkv is on ", x.device(), ", ", name,
                    " on ", t.device());
}

// float32 or x's dtype.
inline at::Tensor numbers(const at::Tensor &x, const at::Tensor &t, int64_t size, const char *name) {
  check_like(x, t, name);
  TORCH_CHECK_TYPE(t.scalar_type() == x.scalar_type() || t.scalar_type() == at::kFloat, name,
                   " must be float32 or of qkv's dtype (", x.scalar_type(), "), got ", t.scalar_type());
  TORCH_CHECK_VALUE(t.dim() == 1 && t.size(0) == size, name, " must be [", size, "], got ", t.sizes());
  return t.contiguous();
}

inline void check_cache(const at::Tensor &x, const at::Tensor &cache, const char *name) {
  check_like(x, cache, name);
  TORCH_CHECK_TYPE(cache.scalar_type() == x.scalar_type(), name, " must have qkv's dtype (", x.scalar_type(), "), got ",
                   cache.scalar_type());
  TORCH_CHECK_VALUE(cache.dim() == 4 && cache.size(0) == x.size(0) && cache.size(1) > 0 && cache.size(3) > 0, name,
                    " must be [batch, kv_heads, capacity, head_dim] with qkv's batch (", x.size(0), "), got ",
                    cache.sizes());
  TORCH_CHECK_VALUE(cache.stride(3) == 1 || cache.size(3) == 1, name,
                    " must have stride 1 in its last dimension, got strides ", cache.strides());
  at::assert_no_internal_overlap(cache);
}

inline void check_projection(at::TensorList qkv) {
  TORCH_CHECK_VALUE(qkv.size() == 1 || qkv.size() == 3, "qkv must be one tensor or three (query, key, value), got ",
                    qkv.size());
  const at::Tensor &x = qkv[0];
  TORCH_CHECK_TYPE(x.is_floating_point() && x.element_size() >= 2,
                   "qkv must be float16, bfloat16, float32 or float64, got ", x.scalar_type());
  for (const at::Tensor &t : qkv) {
    check_like(x, t, "a part of it");
    TORCH_CHECK_TYPE(t.scalar_type() == x.scalar_type(), "query, key and value must have one dtype, got ",
                     x.scalar_type(), " and ", t.scalar_type());
    TORCH_CHECK_VALUE(t.dim() == 3, "qkv must be [batch, length, heads * head_dim], got ", t.sizes());
    TORCH_CHECK_VALUE(t.sizes().slice(0, 2) == x.sizes().slice(0, 2),
                      "query, key and value must have one batch size and length, got ", x.sizes(), " and ", t.sizes());
    TORCH_CHECK_VALUE(t.stride(2) == 1 || t.size(2) == 1, "qkv must have stride 1 in its last dimension, got strides ",
                      t.strides(), ": call contiguous()");
  }
}

// Cuts the projection into the heads that the caches say there are.
inline void split(at::TensorList qkv, const at::Tensor &key_cache, const at::Tensor &value_cache, QkvArgs &args) {
  const int64_t kv_heads = key_cache.size(1), head_dim = key_cache.size(3), value_dim = value_cache.size(3);
  const int64_t key_width = kv_heads * head_dim, value_width = kv_heads * value_dim;
  const int64_t query_width = qkv[0].size(2) - (qkv.size() == 1 ? key_width + value_width : 0);
  TORCH_CHECK_VALUE(query_width > 0 && query_width % key_width == 0, qkv.size() == 1 ? "qkv" : "query", " of width ",
                    qkv[0].size(2), " does not hold a multiple of the ", kv_heads,
                    " key/value heads as query heads of size ", head_dim,
                    qkv.size() == 1 ? " beside keys and values" : "");
  if (qkv.size() == 3) {
    TORCH_CHECK_VALUE(qkv[1].size(2) == key_width && qkv[2].size(2) == value_width, "key and value must be ", key_width,
                      " and ", value_width, " wide, as their caches are, got ", qkv[1].size(2), " and ",
                      qkv[2].size(2));
  }
  const auto part = [&](int64_t index, int64_t first, int64_t width, int64_t dim) {
    const at::Tensor &whole = qkv.size() == 3 ? qkv[index] : qkv[0];
    return whole.narrow(2, qkv.size() == 3 ? 0 : first, width).unflatten(2, {width / dim, dim});
  };
  args.query = part(0, 0, query_width, head_dim);
  args.key = part(1, query_width, key_width, head_dim);
  args.value = part(2, query_width + key_width, value_width, value_dim);
}

inline void split_bias(const at::Tensor &x, const at::Tensor &bias, QkvArgs &args) {
  const int64_t query = args.query.size(2) * args.query.size(3), key = args.key.size(2) * args.key.size(3),
                value = args.value.size(2) * args.value.size(3);
  const at::Tensor all = numbers(x, bias, query + key + value, "bias");
  args.query_bias = all.narrow(0, 0, query).unflatten(0, {args.query.size(2), args.query.size(3)});
  args.key_bias = all.narrow(0, query, key).unflatten(0, {args.key.size(2), args.key.size(3)});
  args.value_bias = all.narrow(0, query + key, value).unflatten(0, {args.value.size(2), args.value.size(3)});
}

inline Positions positions(const at::Tensor &x, const at::Tensor &t, const char *name) {
  check_like(x, t, name);
  TORCH_CHECK_TYPE(t.scalar_type() == at::kInt || t.scalar_type() == at::kLong, name, " must be int32 or int64, got ",
                   t.scalar_type());
  const int64_t batch = x.size(0), length = x.size(1);
  const bool starts = t.dim() == 1 && t.size(0) == batch;
  TORCH_CHECK_VALUE(starts || (t.dim() == 2 && (t.size(0) == batch || t.size(0) == 1) && t.size(1) == length), name,
                    " must be [batch, length] or the start [batch] of each row (", batch, ", ", length, "), got ",
                    t.sizes());
  return {(starts ? t.unsqueeze(1) : t).expand({batch, length}), starts ? 1 : 0};
}

inline void check_rotation(const QkvOptions &o, QkvArgs &args) {
  TORCH_CHECK_VALUE(o.cos.has_value() == o.sin.has_value(), "cos and sin must be given together");
  TORCH_CHECK_VALUE(o.cos || !o.position_ids, "position_ids are rows of the tables cos and sin: give those too");
  if (!o.cos) return;
  const RotaryArgs rotation = check_angles(args.query, *o.cos, *o.sin, o.interleaved);
  args.pairs = rotation.pairs;
  args.angle_step = rotation.angle_step;
  if (o.position_ids) {
    TORCH_CHECK_VALUE(o.cos->dim() == 2, "with position_ids cos and sin are tables [positions, width], got ",
                      o.cos->sizes());
    args.angle = positions(args.query, *o.position_ids, "position_ids");
    args.cos = *o.cos;
    args.sin = *o.sin;
    return;
  }
  TORCH_CHECK_VALUE(o.cos->dim() < 4 || o.cos->size(1) == 1, "cos and sin must be the same for all heads, got ",
                    o.cos->sizes());
  const at::Tensor heads_first = args.query.transpose(1, 2);
  args.cos = rotary_angles(*o.cos, heads_first, "cos").select(1, 0);
  args.sin = rotary_angles(*o.sin, heads_first, "sin").select(1, 0);
}

}  // namespace qkv

// Everything but the values of the positions, which a GPU's host does not see.
inline QkvArgs check_qkv_rope_cache(at::TensorList qkv, const at::Tensor &key_cache, const at::Tensor &value_cache,
                                    const at::Tensor &cache_positions, const QkvOptions &o) {
  qkv::check_projection(qkv);
  const at::Tensor &x = qkv[0];
  qkv::check_cache(x, key_cache, "key_cache");
  qkv::check_cache(x, value_cache, "value_cache");
  TORCH_CHECK_VALUE(key_cache.sizes().slice(0, 3) == value_cache.sizes().slice(0, 3),
                    "key_cache and value_cache must have the same heads and capacity, got ", key_cache.sizes(), " and ",
                    value_cache.sizes());
  const at::MemOverlapStatus overlap = at::get_overlap_status(key_cache, value_cache);
  TORCH_CHECK_VALUE(overlap != at::MemOverlapStatus::Full && overlap != at::MemOverlapStatus::Partial,
                    "key_cache and value_cache must not share memory");
  QkvArgs args;
  qkv::split(qkv, key_cache, value_cache, args);
  if (o.bias) qkv::split_bias(x, *o.bias, args);
  if (o.q_norm) args.q_norm = qkv::numbers(x, *o.q_norm, key_cache.size(3), "q_norm");
  if (o.k_norm) args.k_norm = qkv::numbers(x, *o.k_norm, key_cache.size(3), "k_norm");
  TORCH_CHECK_VALUE(o.eps >= 0, "eps must not be negative, got ", o.eps);
  args.cache = qkv::positions(x, cache_positions, "cache_positions");
  qkv::check_rotation(o, args);
  return args;
}

}  // namespace rocforge
