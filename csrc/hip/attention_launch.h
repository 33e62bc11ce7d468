// What a plan of attention launches, and the memory between its kernels. For host files of csrc/hip.
#pragma once

#include <ATen/ops/empty.h>

#include "hip/attention_arguments.h"

namespace rocforge::gpu {

inline void launch_attention(const Attention &a, const AttentionPlan &plan, const at::Tensor &out,
                             const at::Tensor &lse, void *stream) {
  if (plan.path == Path::kRows) return launch_attention_rows(a, stream);
  if (plan.splits == 1) {
    return launch_attention_tiles(a, plan, {1, lse.numel(), nullptr, nullptr, nullptr}, stream);
  }
  const auto numbers = out.options().dtype(at::kFloat);
  at::Tensor outs = at::empty({plan.splits, out.numel()}, numbers);
  at::Tensor states = at::empty({2, plan.splits, lse.numel()}, numbers);
  auto *const peaks = states.mutable_data_ptr<float>();
  const Splits splits{plan.splits, lse.numel(), outs.mutable_data_ptr<float>(), peaks,
                      peaks + plan.splits * lse.numel()};
  launch_attention_tiles(a, plan, splits, stream);
  launch_attention_combine(a, splits, stream);
}

}  // namespace rocforge::gpu
