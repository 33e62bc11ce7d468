// Before and after the tiles: delta of each row, and the sums over splits.
#include "hip/gpu.h"
// gpu.h first.
#include "hip/attention_backward.h"
#include "hip/attention_work.h"

namespace rocforge::gpu {
namespace {

constexpr int kWaves = 4;
constexpr int kRowLanes = 8;  // that share a row, 8 values at a time

template <class T> ROCFORGE_DEVICE float product8(const T *left, const T *right, bool aligned) {
  Vec<T, 8> l, r;
  if (aligned) {
    l = load<8>(left), r = load<8>(right);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) l[i] = left[i], r[i] = right[i];
  }
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) sum += to_float(l[i]) * to_float(r[i]);
  return sum;
}

// delta = rowsum(grad_out o out) - grad_lse. value_dim is a multiple of 8.
template <class T> __global__ void __launch_bounds__(kWaves *kWave) delta_kernel(const AttentionGradients g) {
  const Attention &a = g.a;
  const int64_t heads = a.kv_heads * a.group, rows = a.batch * heads * a.rows;
  const int64_t wanted = static_cast<int64_t>(blockIdx.x) * (kWaves * kWave / kRowLanes) + threadIdx.x / kRowLanes;
  const int64_t row = wanted < rows ? wanted : rows - 1, batch_head = quotient(row, static_cast<uint32_t>(a.rows));
  const int64_t batch = quotient(batch_head, static_cast<uint32_t>(heads));
  const T *const grad = static_cast<const T *>(g.grad_out.data) + batch * g.grad_out.batch +
                        (batch_head - batch * heads) * g.grad_out.head + (row - batch_head * a.rows) * g.grad_out.row;
  const T *const out = static_cast<const T *>(a.out) + row * a.value_dim;
  float delta = 0;
  for (int d = threadIdx.x % kRowLanes * 8; d < a.value_dim; d += kRowLanes * 8) {
    delta += product8(grad + d, out + d, g.grad_out.aligned);
  }
  delta = reduce<kRowLanes>(delta, [](float l, float r) { return l + r; });
  if (wanted >= rows || threadIdx.x % kRowLanes != 0) return;
  if (g.grad_lse) delta -= g.grad_lse[row];
  static_cast<float *>(g.numbers.delta)[row] = a.lse[row] == -kInfinity ? 0 : delta;
}

// What the splits of a tensor left, added up in their order.
template <class T>
__global__ void __launch_bounds__(kWaves *kWave) sum_kernel(const float *partial, int splits, int64_t count, T *sums) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * (kWaves * kWave) + threadIdx.x) * 8;
  if (at >= count) return;
  float total[8] = {};
  for (int s = 0; s < splits; ++s) {
    const Vec<float, 8> values = load<8>(partial + s * count + at);
#pragma unroll
    for (int i = 0; i < 8; ++i) total[i] += values[i];
  }
  store(sums + at, convert<T>(total));
}

template <class T> void launch_sum(const float *partial, int splits, int64_t count, void *sums, void *stream) {
  const int threads = kWaves * device_properties().wave_size;
  const int64_t workgroups = (count / 8 + threads - 1) / threads;
  if (workgroups > INT32_MAX) throw std::runtime_error("mqa_attention_backward: more than 2^41 values of keys");
  launch({"mqa_attention_backward (sums)", dim3(static_cast<unsigned>(workgroups)), static_cast<unsigned>(threads),
          stream},
         sum_kernel<T>, partial, splits, count, static_cast<T *>(sums));
}

}  // namespace

void launch_delta(const AttentionGradients &g, void *stream) {
  const int threads = kWaves * device_properties().wave_size, rows_at_once = threads / kRowLanes;
  const int64_t rows = g.a.batch * g.a.kv_heads * g.a.group * g.a.rows;
  const int64_t workgroups = (rows + rows_at_once - 1) / rows_at_once;
  if (workgroups > INT32_MAX || g.a.rows > INT32_MAX) {
    throw std::runtime_error("mqa_attention_backward: more than 2^31 query rows");
  }
  auto *const kernel = g.a.type == Element::kHalf ? delta_kernel<f16> : delta_kernel<bf16>;
  launch({"mqa_attention_backward (delta)", dim3(static_cast<unsigned>(workgroups)), static_cast<unsigned>(threads),
          stream},
         kernel, g);
}

void launch_gradient_sums(const AttentionGradients &g, const GradientSplits &splits, void *stream) {
  const Attention &a = g.a;
  const int64_t keys = a.batch * a.kv_heads * a.keys;
  const auto sum = a.type == Element::kHalf ? launch_sum<f16> : launch_sum<bf16>;
  sum(splits.key, splits.count, keys * a.head_dim, g.grad_key, stream);
  sum(splits.value, splits.count, keys * a.value_dim, g.grad_value, stream);
}

}  // namespace rocforge::gpu
