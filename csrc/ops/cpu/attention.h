// What the CPU's attention works on: pointers, strides and numbers, no torch. The tile functions are compiled once per
// instruction set (attention_tiles.cpp); isa.h picks one.
#pragma once

#include <cstdint>

#include "ops/attention_rule.h"

namespace rocforge::cpu {

enum class Element { kFloat, kDouble, kHalf, kBFloat16, kBool };

// A [batch, heads, rows, width] tensor; strides in elements. Only a mask's column stride is not 1.
struct View {
  char *data = nullptr;  // null: not given
  Element type = Element::kFloat;
  int64_t batch = 0, head = 0, row = 0, column = 0;
  bool blocks = false;  // of Q8_0, which decode to `type`; strides in bytes. Keys and values only

  ROCFORGE_HD int64_t element_size() const {
    if (blocks || type == Element::kBool) return 1;
    return type == Element::kFloat ? 4 : type == Element::kDouble ? 8 : 2;
  }
  ROCFORGE_HD char *at(int64_t b, int64_t h, int64_t r, int64_t c = 0) const {
    return data + (b * batch + h * head + r * row + c * column) * element_size();
  }
};

// What backward keeps of each query row: Acc [batch, query_heads, query_length] each. A weight is
// exp(logit - base) * inverse_sum.
struct RowNumbers {
  void *base;  // +inf where no key is seen
  void *inverse_sum;
  void *delta;  // grad_out . out - grad_lse
  void *sink;   // the row's share of the sink's gradient
};

struct Attention {
  View query, key, value, mask;
  int64_t query_heads = 0, kv_heads = 0, query_length = 0, head_dim = 0, value_dim = 0;
  double scale = 0, softcap = 0;       // softcap 0: none
  const void *sinks = nullptr;         // Acc [query_heads]
  const void *alibi_slopes = nullptr;  // Acc [query_heads] of each batch row
  int64_t alibi_batch = 0;             // stride between batch rows, 0 when shared

  View out;
  float *lse = nullptr;  // [batch, query_heads, query_length]

  // Backward only.
  View grad_out, grad_query, grad_key, grad_value, grad_mask;
  const float *grad_lse = nullptr;
  RowNumbers rows{};

  ROCFORGE_HD int64_t group() const { return query_heads / kv_heads; }
  // Queries of a MaskTile at most: some 256 rows when all heads of a group are counted.
  ROCFORGE_HD int64_t mask_queries() const { return group() > 0 && group() < 256 ? 256 / group() : 1; }
  // Where a row's numbers stand in [batch, query_heads, query_length].
  ROCFORGE_HD int64_t number(int64_t batch, int64_t head, int64_t query) const {
    return (batch * query_heads + head) * query_length + query;
  }
};

// A batch row, or one of the sequences packed into it.
struct Sequence {
  int64_t batch, query_begin, key_begin;
  AttentionRule rule;
};

// Query rows of one KV head, the heads of its group side by side: row r is query r / group of head r % group.
struct RowTile {
  const Sequence *sequence;
  int64_t kv_head, begin;
  int rows;
};

// Keys of one KV head; `keys` are counted from the sequence's first.
struct KeyTile {
  const Sequence *sequence;
  int64_t kv_head;
  KeyRange keys;
};

// The part of a mask's gradient that one thread sums up: what the sequences, KV heads and queries named here add to the
// keys of one tile. More than one of each where the mask is broadcast there.
struct MaskTile {
  const Sequence *sequences;
  int64_t sequence_count, kv_head_begin, kv_head_end, query_begin, query_end;
  KeyRange keys;
};

// The functions for one accumulating type. `scratch` is 64-byte aligned.
struct AttentionTiles {
  int row_tile, key_tile;                         // at most
  int64_t (*forward_scratch)(const Attention &);  // bytes
  int64_t (*backward_scratch)(const Attention &);
  int64_t (*partial_size)(const Attention &, int rows);  // bytes of one partial result

  // Unnormalised result of the rows over some keys.
  void (*forward)(const Attention &, const RowTile &, KeyRange keys, void *partial, void *scratch);
  // Merges `count` partial results of the rows in their order, adds the sink, and writes out and lse.
  void (*finish)(const Attention &, const RowTile &, char *partials, int count);

  // grad_query and Attention::rows; then, from these, grad_key with grad_value, and grad_mask.
  void (*backward_rows)(const Attention &, const RowTile &, void *scratch);
  void (*backward_keys)(const Attention &, const KeyTile &, void *scratch);
  void (*backward_mask)(const Attention &, const MaskTile &, void *scratch);
};

struct AttentionKernels {
  AttentionTiles float32, float64;
};

}  // namespace rocforge::cpu
