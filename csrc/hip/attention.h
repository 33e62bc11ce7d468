// What the attention kernels are given, and their launchers. No torch, no vendor; kernels include gpu.h first.
#pragma once

#include <cstdint>

#include "ops/attention_rule.h"

namespace rocforge::gpu {

enum class Element { kBool, kHalf, kBFloat16, kFloat, kDouble };

// Heads of vectors, the last dimension without gaps. Strides in elements.
struct Heads {
  const void *data;
  int64_t batch, head, row;
  bool aligned;  // every row starts at a multiple of 16 bytes and holds whole ones
};

// A bool mask (true keeps) or numbers to add; stride 0 where broadcast.
struct Mask {
  const void *data;  // null: no mask
  Element type;
  int64_t batch, head, row, key;
};

// One number a head, or a head and batch row.
struct HeadNumbers {
  const void *data;  // null: none
  Element type;
  int64_t batch, head;
};

struct Attention {
  Element type;
  Heads query, key, value;  // Path::kDecodeBlocks: key and value are rows of Q8_0 blocks, their strides bytes
  void *out;                // [batch, heads, rows, value_dim], contiguous
  float *lse;               // [batch, heads, rows]
  int64_t batch, kv_heads, rows, keys;
  int group;  // query heads of a key/value head
  int head_dim, value_dim;
  Causal causal;
  int64_t window;  // 0: none
  double scale, softcap;
  Mask mask;
  HeadNumbers sinks, alibi;
  // On the device, and not trusted: what they say is clamped to the tensors.
  const int32_t *kv_lengths;                   // [batch] or null
  const int32_t *cu_seqlens_q, *cu_seqlens_k;  // [sequences + 1] or null; then batch is 1
  int64_t sequences;

  // What stands between scores and softmax, as kernels compute it: x = cap(score * logit_scale) + additions, weight
  // e^((x - max) * exp_scale). The scale waits for the difference where it can: it may be what makes a score overflow.
  double logit_scale, exp_scale;
};

// Keys shared out between workgroups, and what each of them leaves for the combination.
inline constexpr int kMostSplits = 512;
struct Splits {
  int count;     // 1: the workgroups write the result themselves
  int64_t rows;  // batch * kv_heads * rows of queries * group, numbered in this order
  float *outs;   // [count, rows, value_dim] not yet divided by the sum
  float *peaks;  // [count, rows] the largest x, -inf where a split has no keys: its outs are not written
  float *sums;   // the same shape: the sum of weights
};

enum class Path { kPrefill, kDecode, kDecodeBlocks, kRows };

struct AttentionPlan {
  Path path;
  int splits;
};

// csrc/hip/attention_tiles_kernel.hip is compiled in shards, which share its dtypes and head sizes: true when this one
// has the kernel for `dim`, the padded head size, and has queued it.
inline constexpr int kAttentionShards = 8;
template <int shard>
bool launch_attention_shard(const Attention &a, Path path, int dim, const Splits &splits, void *stream);

// Which kernel runs, and over how many splits. std::runtime_error where no kernel can.
AttentionPlan plan_attention(const Attention &a);

// Queue the work on `stream`. std::runtime_error when a launch fails.
void launch_attention_tiles(const Attention &a, const AttentionPlan &plan, const Splits &splits, void *stream);
void launch_attention_combine(const Attention &a, const Splits &splits, void *stream);
// After the tiles of packed sequences: rows of none get 0 and lse -inf.
void launch_attention_orphans(const Attention &a, void *stream);
void launch_attention_rows(const Attention &a, void *stream);

}  // namespace rocforge::gpu
