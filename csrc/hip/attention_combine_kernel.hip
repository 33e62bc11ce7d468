// Brings together what the splits of the keys left for each query row.
#include "hip/attention_work.h"

namespace rocforge::gpu {
namespace {

constexpr int kMostThreads = kMostSplits;  // at least one for every split
constexpr int kMostWaves = kMostThreads / 32;
constexpr int kAhead = 6;  // loads of a thread under way at once

// Threads that share a row's outputs, four values each.
ROCFORGE_DEVICE int lanes_of(int value_dim) { return value_dim <= 64 ? 16 : value_dim <= 128 ? 32 : 64; }

struct RowNumbering {
  Divider head_rows, group, kv_heads;  // head_rows: of a key/value head
};

// Over all threads; `meet`: one float for each wave.
template <class Combine> ROCFORGE_DEVICE float reduce_workgroup(float x, float *meet, Combine combine) {
  x = reduce(x, combine);
  if (lane_id() == 0) meet[wave_id()] = x;
  syncthreads();
  x = meet[0];
  for (unsigned w = 1; w < blockDim.x / kWave; ++w) x = combine(x, meet[w]);
  return x;
}

// One workgroup a row. The weight of each split comes first, so that the loads of the outputs wait for nothing.
template <class T>
__global__ void __launch_bounds__(kMostThreads)
    combine_kernel(const Attention a, const RowNumbering numbering, const Splits splits) {
  SHARED(float, weights, [kMostSplits]);
  SHARED(float, totals, [kMostThreads][4]);
  SHARED(float, meet, [2][kMostWaves]);
  const int64_t row = blockIdx.x;
  const int threads = blockDim.x, thread = threadIdx.x;
  const auto scale = static_cast<float>(a.exp_scale);

  // A split without keys says so by its sum; its peak is -inf.
  const bool has_split = thread < splits.count;
  const float own_peak = has_split ? splits.peaks[thread * splits.rows + row] : -kInfinity;
  const float own_sum = has_split ? splits.sums[thread * splits.rows + row] : 0;
  const float peak = reduce_workgroup(own_peak, meet[0], [](float x, float y) { return fmaxf(x, y); });
  const float own_weight = own_sum == 0 ? 0 : natural_exp((own_peak - (peak == -kInfinity ? 0 : peak)) * scale);
  if (has_split) weights[thread] = own_weight;
  const float sum = reduce_workgroup(own_sum * own_weight, meet[1], [](float x, float y) { return x + y; });

  // Neighbouring threads take four values each of one split's outputs; so many splits are read at once.
  const int lanes = lanes_of(a.value_dim), together = threads / lanes, d = thread % lanes * 4;
  float total[4] = {};
  for (int first = thread / lanes; first < splits.count; first += kAhead * together) {
    Vec<float, 4> parts[kAhead];
    float weight[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      const int i = first + j * together;
      weight[j] = i < splits.count && d < a.value_dim ? weights[i] : 0;
      // Where the weight is 0, perhaps nothing was written.
      parts[j] = weight[j] != 0 ? load<4>(splits.outs + (i * splits.rows + row) * a.value_dim + d) : Vec<float, 4>{};
    }
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
#pragma unroll
      for (int k = 0; k < 4; ++k) total[k] += parts[j][k] * weight[j];
    }
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) totals[thread][k] = total[k];
  syncthreads();

  const auto flat = static_cast<uint32_t>(row);
  const uint32_t batch_head = divide(flat, numbering.head_rows), batch = divide(batch_head, numbering.kv_heads);
  const uint32_t in_head = flat - batch_head * numbering.head_rows.divisor, query = divide(in_head, numbering.group);
  const int64_t head = (batch_head - batch * numbering.kv_heads.divisor) * int64_t{a.group} +
                       (in_head - query * numbering.group.divisor);
  const int64_t out = (batch * a.kv_heads * a.group + head) * a.rows + query;
  const auto end = end_row(a, head, peak * scale, sum);
  if (thread == 0) a.lse[out] = end.lse;
  for (int i = thread; i < a.value_dim; i += threads) {
    float value = 0;
    for (int g = 0; g < together; ++g) value += totals[g * lanes + i / 4][i % 4];
    static_cast<T *>(a.out)[out * a.value_dim + i] = from_float<T>(value * end.factor);
  }
}

}  // namespace

void launch_attention_combine(const Attention &a, const Splits &splits, void *stream) {
  if (splits.rows > INT32_MAX) throw std::runtime_error("mqa_attention: more than 2^31 query rows over split keys");
  const unsigned threads = splits.count <= 8 ? 64 : splits.count <= 32 ? 128 : splits.count <= 64 ? 256 : kMostThreads;
  const RowNumbering numbering{make_divider(a.rows * a.group), make_divider(a.group), make_divider(a.kv_heads)};
  auto *const kernel = a.type == Element::kHalf ? combine_kernel<f16> : combine_kernel<bf16>;
  launch({"mqa_attention (combine)", dim3(static_cast<unsigned>(splits.rows)), threads, stream}, kernel, a, numbering,
         splits);
}

}  // namespace rocforge::gpu
