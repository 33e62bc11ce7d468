// Brings together what the splits of the keys left for each query row.
#include "hip/attention_work.h"

namespace rocforge::gpu {
namespace {

constexpr int kWaves = 8;  // 8 of 64 lanes is all that a workgroup may be

// One workgroup a row. Wave w takes every eighth split from w on, a lane kVector values at a time.
template <class T>
__global__ void __launch_bounds__(kWaves *kWave) combine_kernel(const Attention a, const Splits splits) {
  SHARED(float, totals, [kWaves][256]);
  SHARED(float, states, [2][kWaves]);
  const int64_t row = blockIdx.x, rows = a.batch * a.kv_heads * a.group * a.rows;
  const int lane = lane_id(), wave = wave_id();
  const auto scale = static_cast<float>(a.exp_scale);
  const auto peak_of = [&](int i) {
    return splits.sums[i * rows + row] != 0 ? splits.peaks[i * rows + row] : -kInfinity;
  };

  float peak = -kInfinity;
  for (int i = threadIdx.x; i < splits.count; i += kWaves * kWave) peak = fmaxf(peak, peak_of(i));
  peak = reduce(peak, [](float x, float y) { return fmaxf(x, y); });
  if (lane == 0) states[0][wave] = peak;
  syncthreads();
#pragma unroll
  for (int w = 0; w < kWaves; ++w) peak = fmaxf(peak, states[0][w]);
  const float base = peak == -kInfinity ? 0 : peak;

  constexpr int kLaneValues = 256 / kWave;
  float values[kLaneValues] = {}, sum = 0;
  for (int i = wave; i < splits.count; i += kWaves) {
    const float part = splits.sums[i * rows + row];
    if (part == 0) continue;  // nothing was written there
    const float weight = natural_exp((splits.peaks[i * rows + row] - base) * scale);
    const float *const out = splits.outs + (i * rows + row) * a.value_dim;
    sum += part * weight;
#pragma unroll
    for (int j = 0; j < kLaneValues; ++j) {
      const int d = j * kWave + lane;
      if (d < a.value_dim) values[j] += out[d] * weight;
    }
  }
#pragma unroll
  for (int j = 0; j < kLaneValues; ++j) totals[wave][j * kWave + lane] = values[j];
  if (lane == 0) states[1][wave] = sum;
  syncthreads();

  sum = 0;
#pragma unroll
  for (int w = 0; w < kWaves; ++w) sum += states[1][w];
  const auto end = end_row(a, row / a.rows % (a.kv_heads * a.group), peak * scale, sum);
  if (threadIdx.x == 0) a.lse[row] = end.lse;
  for (int d = threadIdx.x; d < a.value_dim; d += kWaves * kWave) {
    float total = 0;
#pragma unroll
    for (int w = 0; w < kWaves; ++w) total += totals[w][d];
    static_cast<T *>(a.out)[row * a.value_dim + d] = from_float<T>(total * end.factor);
  }
}

}  // namespace

void launch_attention_combine(const Attention &a, const Splits &splits, void *stream) {
  const auto rows = static_cast<unsigned>(a.batch * a.kv_heads * a.group * a.rows);
  const auto threads = static_cast<unsigned>(kWaves * device_properties().wave_size);
  auto *const kernel = a.type == Element::kHalf ? combine_kernel<f16> : combine_kernel<bf16>;
  launch({"mqa_attention (combine)", dim3(rows), threads, stream}, kernel, a, splits);
}

}  // namespace rocforge::gpu
