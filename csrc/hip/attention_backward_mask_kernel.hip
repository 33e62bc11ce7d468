// Gradients of what is added to the scores: a float mask, summed where it is broadcast, and the sinks.
#include "hip/gpu.h"
// gpu.h first.
#include "hip/attention_backward.h"
#include "hip/attention_plain.h"
#include "hip/gpu/tile_moves.h"

namespace rocforge::gpu {
namespace {

// A weight of row `row` (of out) at logit x / exp_scale.
template <class R> ROCFORGE_DEVICE R weight_of(const AttentionGradients &g, int64_t row, R x) {
  const auto exp_scale = static_cast<R>(g.a.exp_scale);
  if (g.a.lse[row] == -kInfinity) return 0;
  const R base = g.numbers.base ? static_cast<const R *>(g.numbers.base)[row] : g.a.lse[row] / exp_scale;
  const R inverse_sum = g.numbers.inverse_sum ? static_cast<const R *>(g.numbers.inverse_sum)[row] : 1;
  return natural_exp((x - base) * exp_scale) * inverse_sum;
}
template <class R> ROCFORGE_DEVICE R delta_of(const AttentionGradients &g, int64_t row) {
  return static_cast<const R *>(g.numbers.delta)[row];
}

// d logit of a row and key of the tensors; 0 where the row does not see the key.
template <class T>
ROCFORGE_DEVICE Real<T> logit_gradient(const AttentionGradients &g, const RowPlace &here, int64_t head, int64_t key) {
  using R = Real<T>;
  const Attention &a = g.a;
  const Sequence &s = here.sequence;
  const int64_t kv_head = head / a.group, key_in = key - s.key_begin, row = out_row(a, s, head, here.query);
  if (!here.in_sequence() || !s.rule.visible(here.query).holds(key_in)) return 0;
  const T *const query = row_of<T>(a.query, s.batch, head, s.query_begin + here.query);
  const T *const grad_out = row_of<T>(g.grad_out, s.batch, head, s.query_begin + here.query);
  const R slope = a.alibi.data ? head_number<R>(a.alibi, s.batch, head) : 0;
  const R x = logit(a, dot<R>(query, row_of<T>(a.key, s.batch, kv_head, key), a.head_dim), slope,
                    s.rule.position(here.query) - key_in, mask_row(a, s, head, here.query) + key_in * a.mask.key);
  const R grad_weight = dot<R>(grad_out, row_of<T>(a.value, s.batch, kv_head, key), a.value_dim);
  return weight_of(g, row, x) * (grad_weight - delta_of<R>(g, row));
}

template <class T>
ROCFORGE_DEVICE void store_sum(const AttentionGradients &g, const MaskGradient &m, int64_t at, Real<T> x) {
  if (m.wide) {
    static_cast<Real<T> *>(m.sums)[at] = x;
  } else if (g.a.mask.type == Element::kFloat) {
    static_cast<float *>(m.sums)[at] = static_cast<float>(x);
  } else {
    static_cast<T *>(m.sums)[at] = narrowed<T>(x);
  }
}

// A thread an element of `sums`.
constexpr int kThreads = 128;
template <class T>
__global__ void __launch_bounds__(kThreads) mask_kernel(const AttentionGradients g, const MaskGradient m) {
  const Attention &a = g.a;
  const int64_t heads = a.kv_heads * a.group, sum_rows = m.query_parts ? m.query_parts : a.rows;
  const int64_t key_blocks = (a.keys + kThreads - 1) / kThreads;
  int64_t item = blockIdx.x;
  const int64_t key = item % key_blocks * kThreads + threadIdx.x;
  item /= key_blocks;
  const int64_t sum_row = item % sum_rows, head_index = item / sum_rows % m.heads,
                batch_index = item / sum_rows / m.heads;
  if (key >= a.keys) return;

  const int64_t first_query = m.query_parts ? a.rows * sum_row / m.query_parts : sum_row;
  const int64_t end_query = m.query_parts ? a.rows * (sum_row + 1) / m.query_parts : sum_row + 1;
  const int64_t first_head = m.heads == 1 ? 0 : head_index, end_head = m.heads == 1 ? heads : head_index + 1;
  const int64_t first_batch = m.batches == 1 ? 0 : batch_index, end_batch = m.batches == 1 ? a.batch : batch_index + 1;
  Real<T> sum = 0;
  for (int64_t batch = first_batch; batch < end_batch; ++batch) {
    for (int64_t query = first_query; query < end_query; ++query) {
      const RowPlace here = place_of_row(reread(g).a, batch, query);
      for (int64_t head = first_head; head < end_head; ++head) sum += logit_gradient<T>(reread(g), here, head, key);
    }
  }
  store_sum<T>(g, m, ((batch_index * m.heads + head_index) * sum_rows + sum_row) * a.keys + key, sum);
}

template <class T> void launch_mask(const AttentionGradients &g, const MaskGradient &m, void *stream) {
  const int64_t sum_rows = m.query_parts ? m.query_parts : g.a.rows;
  const int64_t workgroups = m.batches * m.heads * sum_rows * ((g.a.keys + kThreads - 1) / kThreads);
  if (workgroups > INT32_MAX) throw std::runtime_error("mqa_attention_backward: attn_mask has more than 2^38 elements");
  launch({"mqa_attention_backward (mask)", dim3(static_cast<unsigned>(workgroups)), kThreads, stream}, mask_kernel<T>,
         g, m);
}

// A workgroup a head: the sink's weight is that of a key whose value is 0.
constexpr int kSinkWaves = 4;
template <class T>
__global__ void __launch_bounds__(kSinkWaves *kWave) sink_kernel(const AttentionGradients g, void *grad_sinks) {
  using R = Real<T>;
  const Attention &a = g.a;
  SHARED(R, sums, [kSinkWaves]);
  const int64_t head = blockIdx.x, heads = a.kv_heads * a.group;
  const R x = head_number<R>(a.sinks, 0, head) / static_cast<R>(a.exp_scale);
  R sum = 0;
  for (int64_t batch = 0; batch < a.batch; ++batch) {
    for (int64_t i = threadIdx.x; i < a.rows; i += kSinkWaves * kWave) {
      const int64_t row = (batch * heads + head) * a.rows + i;
      sum -= weight_of<R>(g, row, x) * delta_of<R>(g, row);
    }
  }
  sum = reduce(sum, [](R l, R r) { return l + r; });
  if (lane_id() == 0) sums[wave_id()] = sum;
  syncthreads();
  if (threadIdx.x != 0) return;
  sum = 0;
  for (int w = 0; w < kSinkWaves; ++w) sum += sums[w];
  if (a.sinks.type == Element::kFloat) {
    static_cast<float *>(grad_sinks)[head] = static_cast<float>(sum);
  } else {
    static_cast<T *>(grad_sinks)[head] = narrowed<T>(sum);
  }
}

template <class T> void launch_sink(const AttentionGradients &g, void *grad_sinks, void *stream) {
  launch({"mqa_attention_backward (sinks)", dim3(static_cast<unsigned>(g.a.kv_heads * g.a.group)),
          static_cast<unsigned>(kSinkWaves * device_properties().wave_size), stream},
         sink_kernel<T>, g, grad_sinks);
}

template <class Launch> void with_type(Element type, Launch launch) {
  switch (type) {
    case Element::kHalf:
      return launch(f16{});
    case Element::kBFloat16:
      return launch(bf16{});
    case Element::kDouble:
      return launch(double{});
    default:
      return launch(float{});
  }
}

}  // namespace

void launch_mask_gradient(const AttentionGradients &g, const MaskGradient &m, void *stream) {
  with_type(g.a.type, [&](auto element) { launch_mask<decltype(element)>(g, m, stream); });
}

void launch_sink_gradient(const AttentionGradients &g, void *grad_sinks, void *stream) {
  with_type(g.a.type, [&](auto element) { launch_sink<decltype(element)>(g, grad_sinks, stream); });
}

}  // namespace rocforge::gpu
