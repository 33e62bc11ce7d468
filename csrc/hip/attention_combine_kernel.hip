// Brings together what the splits of the keys left for each query row.
#include "hip/attention_work.h"

namespace rocforge::gpu {
namespace {

constexpr int kWaves = 8;  // 8 of 64 lanes is all that a workgroup may be

// One workgroup a row. The weight of each split comes first, so that the loads of the outputs wait for nothing.
template <class T>
__global__ void __launch_bounds__(kWaves *kWave) combine_kernel(const Attention a, const Splits splits) {
  SHARED(float, weights, [kMostSplits]);
  SHARED(float, totals, [kWaves][256]);
  SHARED(float, states, [2][kWaves]);
  const int64_t row = blockIdx.x, rows = a.batch * a.kv_heads * a.group * a.rows;
  const int lane = lane_id(), wave = wave_id();
  const auto scale = static_cast<float>(a.exp_scale);

  // A split without keys says so by its sum; its peak is -inf.
  constexpr int kPieces = (kMostSplits + kWaves * kWave - 1) / (kWaves * kWave);
  float peaks[kPieces], sums[kPieces], peak = -kInfinity;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int i = threadIdx.x + p * kWaves * kWave;
    peaks[p] = i < splits.count ? splits.peaks[i * rows + row] : -kInfinity;
    sums[p] = i < splits.count ? splits.sums[i * rows + row] : 0;
    peak = fmaxf(peak, peaks[p]);
  }
  peak = reduce(peak, [](float x, float y) { return fmaxf(x, y); });
  if (lane == 0) states[0][wave] = peak;
  syncthreads();
#pragma unroll
  for (int w = 0; w < kWaves; ++w) peak = fmaxf(peak, states[0][w]);
  const float base = peak == -kInfinity ? 0 : peak;

  float sum = 0;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int i = threadIdx.x + p * kWaves * kWave;
    const float weight = sums[p] == 0 ? 0 : natural_exp((peaks[p] - base) * scale);
    sum += sums[p] * weight;
    if (i < kMostSplits) weights[i] = weight;
  }
  sum = reduce(sum, [](float x, float y) { return x + y; });
  if (lane == 0) states[1][wave] = sum;
  syncthreads();

  // Wave w takes every eighth split from w on.
  constexpr int kLaneValues = 256 / kWave;
  float values[kLaneValues] = {};
#pragma unroll 4
  for (int i = wave; i < splits.count; i += kWaves) {
    const float weight = weights[i];
    const float *const out = splits.outs + (i * rows + row) * a.value_dim;
#pragma unroll
    for (int j = 0; j < kLaneValues; ++j) {
      const int d = j * kWave + lane;
      // Where the weight is 0, perhaps nothing was written.
      if (d < a.value_dim && weight != 0) values[j] += out[d] * weight;
    }
  }
#pragma unroll
  for (int j = 0; j < kLaneValues; ++j) totals[wave][j * kWave + lane] = values[j];
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
  const int64_t rows = a.batch * a.kv_heads * a.group * a.rows;
  if (rows > INT32_MAX) throw std::runtime_error("mqa_attention: more than 2^31 query rows over split keys");
  const auto threads = static_cast<unsigned>(kWaves * device_properties().wave_size);
  auto *const kernel = a.type == Element::kHalf ? combine_kernel<f16> : combine_kernel<bf16>;
  launch({"mqa_attention (combine)", dim3(static_cast<unsigned>(rows)), threads, stream}, kernel, a, splits);
}

}  // namespace rocforge::gpu
