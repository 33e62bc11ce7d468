// Which rows and keys a workgroup works on, and the numbers between a score and the softmax.
//
// The query heads that share a key/value head are rows of one matrix, query-major: flat row f of a sequence is query
// f / group of head f % group in the group. A tile is so many flat rows.
#pragma once

#include "hip/gpu.h"
// gpu.h first: it says what the visibility rule's functions are on this device.
#include "hip/attention.h"
#include "hip/divider.h"

namespace rocforge::gpu {

inline constexpr float kInfinity = __builtin_huge_valf();
inline constexpr float kLog2E = 1.4426950408889634f;

ROCFORGE_DEVICE int64_t clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }

// n / by, n >= 0. A 64-bit division takes a GPU some hundred instructions: only where it must be one.
ROCFORGE_DEVICE int64_t quotient(int64_t n, uint32_t by) {
  return n >> 32 == 0 ? static_cast<uint32_t>(n) / by : n / by;
}
ROCFORGE_DEVICE int64_t quotient(int64_t n, const Divider &by) {
  return n >> 31 == 0 ? divide(static_cast<uint32_t>(n), by) : n / by.divisor;
}

// A batch row, or one of the sequences packed into it.
struct Sequence {
  int64_t batch, query_begin, key_begin;
  AttentionRule rule;
};

ROCFORGE_DEVICE Sequence padded_sequence(const Attention &a, int64_t batch) {
  const int64_t keys = a.kv_lengths ? clamp(a.kv_lengths[batch], 0, a.keys) : a.keys;
  return {batch, 0, 0, AttentionRule(a.rows, keys, a.causal, a.window)};
}

// From cu_seqlens; whatever they hold, the sequence lies within the tensors.
ROCFORGE_DEVICE Sequence packed_sequence(const Attention &a, int64_t i) {
  const int64_t query = clamp(a.cu_seqlens_q[i], 0, a.rows), key = clamp(a.cu_seqlens_k[i], 0, a.keys);
  const int64_t queries = clamp(a.cu_seqlens_q[i + 1], query, a.rows) - query;
  const int64_t keys = clamp(a.cu_seqlens_k[i + 1], key, a.keys) - key;
  return {0, query, key, AttentionRule(queries, keys, a.causal, a.window)};
}

// Tiles of packed sequences without knowing their lengths on the host: sequence i starts at tile
// cu_seqlens_q[i] * group / tile_rows + i. That leaves room for its last, partial tile, and some tiles unused.
ROCFORGE_DEVICE int64_t first_tile(const Attention &a, int64_t i, int tile_rows) {
  return quotient(clamp(a.cu_seqlens_q[i], 0, a.rows) * a.group, tile_rows) + i;
}
ROCFORGE_DEVICE int64_t sequence_of_tile(const Attention &a, int64_t tile, int tile_rows) {
  int64_t low = 0, high = a.sequences;  // first_tile(low) <= tile < first_tile(high)
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    if (first_tile(a, middle, tile_rows) <= tile) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// Tiles of rows of one key/value head, over all sequences of a batch row.
inline int64_t row_tiles(const Attention &a, int tile_rows) {
  return a.cu_seqlens_q ? a.rows * a.group / tile_rows + a.sequences : (a.rows * a.group + tile_rows - 1) / tile_rows;
}

// What one workgroup does.
struct RowTile {
  Sequence sequence;
  int64_t kv_head;
  int64_t first_query;  // of the sequence
  int first_head;       // in the group, of the first row
  int rows;             // 0 or less: nothing to do
  int64_t last_query;
};

// `group`: divides by a.group.
ROCFORGE_DEVICE RowTile row_tile(const Attention &a, const Divider &group, int64_t batch, int64_t kv_head, int64_t tile,
                                 int tile_rows) {
  Sequence sequence = padded_sequence(a, a.cu_seqlens_q ? 0 : batch);
  if (a.cu_seqlens_q) {
    const int64_t i = sequence_of_tile(a, tile, tile_rows);
    sequence = packed_sequence(a, i);
    tile -= first_tile(a, i, tile_rows);
  }
  const int64_t first = tile * tile_rows, rows = sequence.rule.queries * a.group;
  const int64_t left = rows - first;
  const int count = left < tile_rows ? static_cast<int>(left < 0 ? 0 : left) : tile_rows;
  const int64_t query = quotient(first, group);
  return {sequence, kv_head,
          query,    static_cast<int>(first - query * a.group),
          count,    count > 0 ? quotient(first + count - 1, group) : query};
}

// The keys of split `i`: an even share in whole units.
ROCFORGE_DEVICE KeyRange share(KeyRange keys, int i, const Divider &splits, int unit) {
  if (splits.divisor == 1) return keys;
  const int64_t all_units = (keys.end - keys.begin + unit - 1) / unit;
  const int64_t units = quotient(all_units + splits.divisor - 1, splits);
  const int64_t begin = keys.begin + i * units * unit, end = begin + units * unit;
  return {begin, end < keys.end ? end : keys.end};
}

template <class Real> ROCFORGE_DEVICE Real number(const void *data, Element type, int64_t i) {
  switch (type) {
    case Element::kBool:
      return static_cast<const uint8_t *>(data)[i] ? Real(0) : -Real(kInfinity);
    case Element::kHalf:
      return to_float(static_cast<const f16 *>(data)[i]);
    case Element::kBFloat16:
      return to_float(static_cast<const bf16 *>(data)[i]);
    case Element::kFloat:
      return static_cast<const float *>(data)[i];
    default:
      return static_cast<Real>(static_cast<const double *>(data)[i]);
  }
}

template <class Real> ROCFORGE_DEVICE Real head_number(const HeadNumbers &n, int64_t batch, int64_t head) {
  return number<Real>(n.data, n.type, batch * n.batch + head * n.head);
}

// Offset in the mask of key 0 of a query row.
ROCFORGE_DEVICE int64_t mask_row(const Attention &a, const Sequence &s, int64_t head, int64_t query) {
  return s.batch * a.mask.batch + head * a.mask.head + (s.query_begin + query) * a.mask.row + s.key_begin * a.mask.key;
}

// Index of a row of `out` and `lse`.
ROCFORGE_DEVICE int64_t out_row(const Attention &a, const Sequence &s, int64_t head, int64_t query) {
  return (s.batch * a.kv_heads * a.group + head) * a.rows + s.query_begin + query;
}

// What is left to do with a row's outputs: `peak` is the largest logit, `sum` that of the weights relative to it.
template <class Real> struct RowEnd {
  Real factor;  // of the outputs
  Real lse;
};

ROCFORGE_DEVICE float natural_log(float x) { return logf(x); }
ROCFORGE_DEVICE double natural_log(double x) { return log(x); }
ROCFORGE_DEVICE float natural_exp(float x) { return expf(x); }
ROCFORGE_DEVICE double natural_exp(double x) { return exp(x); }

template <class Real> ROCFORGE_DEVICE RowEnd<Real> end_row(const Attention &a, int64_t head, Real peak, Real sum) {
  if (sum == 0) return {0, -Real(kInfinity)};  // no keys, sink or not
  if (!a.sinks.data) return {1 / sum, peak + natural_log(sum)};
  const Real sink = head_number<Real>(a.sinks, 0, head), top = sink > peak ? sink : peak;
  const Real scale = natural_exp(peak - top), total = sum * scale + natural_exp(sink - top);
  return {scale / total, top + natural_log(total)};
}

}  // namespace rocforge::gpu
