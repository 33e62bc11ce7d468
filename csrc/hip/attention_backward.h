// What the kernels of attention's backward are given, and their launchers. No torch, no vendor; kernels include gpu.h
// first.
//
// With P = e^(logit - lse), dP = grad_out V^T and delta = rowsum(grad_out o out) - grad_lse of each row:
//     d logit = P (dP - delta)        dV = P^T grad_out        dQ = scale dS K        dK = scale dS^T Q
// where dS is d logit times the softcap's derivative. One pass owns query rows and makes dQ; one owns keys and makes dK
// and dV, going through the query heads of the group one after another. Each sum is made by one wave in a fixed order.
#pragma once

#include "hip/attention.h"

namespace rocforge::gpu {

// A weight is e^((x - base) * exp_scale) * inverse_sum. [batch, heads, rows] each, float (double for float64).
struct RowNumbers {
  void *base;         // null: lse / exp_scale; infinite where a row sees no key
  void *inverse_sum;  // null: 1
  void *delta;
};

struct AttentionGradients {
  Attention a;  // out and lse are what the forward pass made
  Heads grad_out;
  const float *grad_lse;  // [batch, heads, rows], or null
  RowNumbers numbers;
  void *grad_query, *grad_key, *grad_value;  // contiguous
};

// A gradient summed where the mask is broadcast. Sums go over all batch rows (heads) where batches (heads) is 1, and
// over each of `query_parts` equal parts of the queries unless that is 0. Keys are never summed over here.
struct MaskGradient {
  void *sums;  // [batches, heads, rows or query_parts, keys]
  bool wide;   // sums are float (double for float64), else of the mask's type
  int64_t batches, heads, query_parts;
};

// Work of one key/value head shared out between `count` workgroups, and what they leave: [count, elements of grad_key].
struct GradientSplits {
  int count;  // 1: workgroups write the gradients themselves
  float *key, *value;
};

// Over how many splits the tile kernels go; 0 where no tile kernel fits: then the plain ones run.
int plan_gradient_splits(const AttentionGradients &g);

inline constexpr int kGradientShards = 8;
template <int shard>
bool launch_gradient_shard(const AttentionGradients &g, const GradientSplits &splits, int dim, void *stream);

// Queue the work on `stream`, in this order. std::runtime_error when a launch fails.
void launch_delta(const AttentionGradients &g, void *stream);  // for the tiles; the plain rows make their own
void launch_gradient_tiles(const AttentionGradients &g, const GradientSplits &splits, void *stream);
void launch_gradient_sums(const AttentionGradients &g, const GradientSplits &splits, void *stream);
void launch_plain_gradients(const AttentionGradients &g, void *stream);
void launch_mask_gradient(const AttentionGradients &g, const MaskGradient &mask, void *stream);
void launch_sink_gradient(const AttentionGradients &g, void *grad_sinks, void *stream);  // [heads], of the sinks' type

}  // namespace rocforge::gpu
