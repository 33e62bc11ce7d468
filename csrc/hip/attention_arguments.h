// From PyTorch's tensors to what the attention kernels are given. For host files of csrc/hip.
#pragma once

#include "hip/attention.h"
#include "ops/mqa_attention.h"

namespace rocforge::gpu {

inline Element element(const at::Tensor &t) {
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

inline Heads heads(const at::Tensor &t) {
  const int64_t chunk = 16 / t.element_size();
  const auto address = reinterpret_cast<uintptr_t>(t.const_data_ptr());
  bool aligned = address % 16 == 0 && t.size(3) % chunk == 0;
  for (int dim = 0; dim < 3; ++dim) aligned &= t.size(dim) == 1 || t.stride(dim) % chunk == 0;
  return {t.const_data_ptr(), t.stride(0), t.stride(1), t.stride(2), aligned};
}

inline Attention describe(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value, const MqaOptions &o,
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

// Puts the lengths into `a`: contiguous, because kernels take no strides for them. Make the device current before, and
// keep this until the kernels are queued.
class Lengths {
 public:
  Lengths(const MqaOptions &o, Attention &a) {
    a.kv_lengths = integers(o.kv_lengths, kept_[0]);
    a.cu_seqlens_q = integers(o.cu_seqlens_q, kept_[1]);
    a.cu_seqlens_k = integers(o.cu_seqlens_k, kept_[2]);
    if (o.cu_seqlens_q) a.sequences = o.cu_seqlens_q->size(0) - 1;
  }

 private:
  static const int32_t *integers(const OptionalTensor &t, at::Tensor &kept) {
    if (!t) return nullptr;
    kept = t->contiguous();
    return kept.const_data_ptr<int32_t>();
  }
  at::Tensor kept_[3];
};

}  // namespace rocforge::gpu
