// From tensors to what the tile functions take, and the threads they run on.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>

#include <atomic>
#include <tuple>
#include <vector>

#include "ops/cpu/isa.h"
#include "ops/mqa_attention.h"

namespace rocforge::cpu {

inline View view(const at::Tensor &t) {
  View v;
  v.data = static_cast<char *>(const_cast<void *>(t.const_data_ptr()));
  v.type = t.scalar_type() == at::kDouble     ? Element::kDouble
           : t.scalar_type() == at::kHalf     ? Element::kHalf
           : t.scalar_type() == at::kBFloat16 ? Element::kBFloat16
           : t.scalar_type() == at::kBool     ? Element::kBool
                                              : Element::kFloat;
  v.batch = t.stride(0);
  v.head = t.stride(1);
  v.row = t.stride(2);
  v.column = t.stride(3);
  return v;
}

inline std::vector<Sequence> padded_sequences(const at::Tensor &query, const at::Tensor &key, const MqaOptions &o,
                                              const MqaArgs &args) {
  std::vector<Sequence> sequences;
  const int64_t batch = query.size(0), queries = query.size(2), keys = key.size(2);
  at::Tensor lengths;
  if (o.kv_lengths) lengths = o.kv_lengths->contiguous();
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t valid = lengths.defined() ? lengths.const_data_ptr<int32_t>()[b] : keys;
    TORCH_CHECK_VALUE(0 <= valid && valid <= keys, "kv_lengths[", b, "] = ", valid, " is not in 0 .. ", keys,
                      ", the key length");
    sequences.push_back({b, 0, 0, AttentionRule(queries, valid, args.causal, args.window)});
  }
  return sequences;
}

inline std::vector<Sequence> packed_sequences(const at::Tensor &query, const at::Tensor &key, const MqaOptions &o,
                                              const MqaArgs &args) {
  const at::Tensor q_ends = o.cu_seqlens_q->contiguous(), k_ends = o.cu_seqlens_k->contiguous();
  const auto check = [](const at::Tensor &ends, const char *name, int64_t total) {
    const auto *const values = ends.const_data_ptr<int32_t>();
    const int64_t last = ends.size(0) - 1;
    TORCH_CHECK_VALUE(values[0] == 0 && values[last] == total, name, " must begin with 0 and end with the length ",
                      total, ", got ", values[0], " and ", values[last]);
    for (int64_t i = 0; i < last; ++i) {
      TORCH_CHECK_VALUE(values[i] <= values[i + 1], name, " must not decrease, got ", values[i], " before ",
                        values[i + 1]);
    }
    return values;
  };
  const int32_t *const q = check(q_ends, "cu_seqlens_q", query.size(2));
  const int32_t *const k = check(k_ends, "cu_seqlens_k", key.size(2));
  std::vector<Sequence> sequences;
  for (int64_t i = 0; i + 1 < q_ends.size(0); ++i) {
    sequences.push_back({0, q[i], k[i], AttentionRule(q[i + 1] - q[i], k[i + 1] - k[i], args.causal, args.window)});
  }
  return sequences;
}

// The checked arguments. Holds what the pointers of `attention` point to, beside the operator's own arguments.
struct AttentionProblem {
  Attention attention;
  std::vector<Sequence> sequences;
  const AttentionTiles *tiles;
  at::ScalarType accumulate;
  at::Tensor mask, sinks, alibi;

  AttentionProblem(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value, const MqaOptions &o)
      : AttentionProblem(query, key, value, o, check_mqa_attention(query, key, value, o)) {}

  AttentionProblem(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value, const MqaOptions &o,
                   const MqaArgs &args) {
    sequences = args.packed ? packed_sequences(query, key, o, args) : padded_sequences(query, key, o, args);
    accumulate = query.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    tiles = accumulate == at::kDouble ? &kernels().attention.float64 : &kernels().attention.float32;
    Attention &a = attention;
    a.query = view(query);
    a.key = view(key);
    a.value = view(value);
    a.query_heads = query.size(1);
    a.kv_heads = key.size(1);
    a.query_length = query.size(2);
    a.head_dim = query.size(3);
    a.value_dim = value.size(3);
    a.scale = args.scale;
    a.softcap = o.softcap;
    if (args.mask.defined()) a.mask = view(mask = args.mask);
    if (o.sinks) a.sinks = (sinks = o.sinks->to(accumulate).contiguous()).const_data_ptr();
    if (args.alibi.defined()) {
      a.alibi_slopes = (alibi = args.alibi.to(accumulate).contiguous()).const_data_ptr();
      a.alibi_batch = a.query_heads;
    }
  }

  // Multiplications of query and key, at most: whether threads are worth waking.
  int64_t work() const {
    int64_t scores = 0;
    for (const Sequence &s : sequences) scores += s.rule.queries * s.rule.keys;
    return scores * attention.query_heads * attention.head_dim;
  }

  // Every tile of query rows, the last of a sequence first: under a causal mask they take longest.
  std::vector<RowTile> row_tiles() const {
    std::vector<RowTile> found;
    for (const Sequence &s : sequences) {
      const int64_t rows = s.rule.queries * attention.group(), step = tiles->row_tile;
      for (int64_t begin = (rows - 1) / step * step; rows > 0 && begin >= 0; begin -= step) {
        for (int64_t kv_head = 0; kv_head < attention.kv_heads; ++kv_head) {
          found.push_back({&s, kv_head, begin, static_cast<int>(std::min(step, rows - begin))});
        }
      }
    }
    return found;
  }
};

// Runs work(item, scratch) for every item on all threads, each taking the next one when it is done with its last. Which
// thread that is must not matter to the result. `small`: not worth a second thread.
template <class Work> void for_each_item(int64_t items, bool small, int64_t scratch_bytes, Work work) {
  std::atomic<int64_t> next{0};
  const int64_t workers = small ? 1 : std::min<int64_t>(items, at::get_num_threads());
  at::parallel_for(0, workers, 1, [&](int64_t, int64_t) {
    const at::DataPtr scratch = c10::GetCPUAllocator()->allocate(scratch_bytes);  // 64-byte aligned
    for (int64_t item = next++; item < items; item = next++) work(item, scratch.get());
  });
}

constexpr int64_t kSmallWork = 1 << 18;

// Of mqa_attention_kernel.cpp: out and lse.
std::tuple<at::Tensor, at::Tensor> attend(AttentionProblem &problem, const at::Tensor &query);

}  // namespace rocforge::cpu
