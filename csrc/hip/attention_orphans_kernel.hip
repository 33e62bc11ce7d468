// Query rows that belong to no packed sequence: tiles are made of sequences and leave them out.
#include "hip/attention_plain.h"

namespace rocforge::gpu {
namespace {

constexpr int kWaves = 4;

// A thread a row. cu_seqlens is not trusted: where it decreases somewhere, no row belongs to a sequence.
__global__ void __launch_bounds__(kWaves *kWave) orphans_kernel(const Attention a) {
  SHARED(bool, sorted, [kWaves]);
  bool in_order = true;
  for (int64_t i = threadIdx.x; i < a.sequences; i += kWaves * kWave) {
    in_order &= a.cu_seqlens_q[i] <= a.cu_seqlens_q[i + 1] && a.cu_seqlens_k[i] <= a.cu_seqlens_k[i + 1];
  }
  in_order = all(in_order);
  if (lane_id() == 0) sorted[wave_id()] = in_order;
  syncthreads();
  for (int w = 0; w < kWaves; ++w) in_order &= sorted[w];

  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWaves * kWave + threadIdx.x;
  if (row >= a.rows || (in_order && place_of_row(a, 0, row).in_sequence())) return;
  for (int64_t head = 0; head < a.kv_heads * a.group; ++head) {
    a.lse[head * a.rows + row] = -kInfinity;
    auto *const out = static_cast<uint16_t *>(a.out) + (head * a.rows + row) * a.value_dim;
    for (int d = 0; d < a.value_dim; ++d) out[d] = 0;
  }
}

}  // namespace

void launch_attention_orphans(const Attention &a, void *stream) {
  const int threads = kWaves * device_properties().wave_size;
  const int64_t workgroups = (a.rows + threads - 1) / threads;
  if (workgroups > INT32_MAX) throw std::runtime_error("mqa_attention: more than 2^38 packed query rows");
  launch({"mqa_attention (rows of no sequence)", dim3(static_cast<unsigned>(workgroups)),
          static_cast<unsigned>(threads), stream},
         orphans_kernel, a);
}

}  // namespace rocforge::gpu
