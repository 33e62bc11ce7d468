// Small kernels of the kinds that csrc/hip has, each right with Fault::none and wrong in one way with another fault.
#pragma once

#include "hip/gpu.h"
#include "hip/mma.h"

namespace rocforge::gpu {

enum class Fault {
  none,
  // sum_kernel
  barrier_removed,
  wave_size_literal,
  mask_off_by_one,
  // unpack_kernel
  tail_guard_missing,
  misaligned_load,
  misaligned_vector,
  // product_kernel
  row_map_wrong,
  syncwave_removed,
  // lds_kernel
  index_out_of_bounds,
  index_before_begin,
  read_before_write,
  // meeting_kernel
  divergent_barrier,
  divergent_shuffle,
  divergent_broadcast,
  exit_before_barrier,
  exit_before_shuffle,
  two_barriers,
  shuffle_meets_barrier,
  two_shuffles_in_helper,
  // order_kernel
  shuffle_orders_nothing,
  workgroups_race,
  vectors_overlap,
  reader_and_writer_race,
  reader_behind_others,
  atomic_and_plain_write,
  ticket_without_barrier,
};

constexpr unsigned kFaultThreads = 256;

// out[row] = sum of in[row * stride + i], i < n; one row a workgroup.
template <Fault fault> __global__ void sum_kernel(const int *in, int *out, int n, int stride) {
  constexpr int kLanes = fault == Fault::wave_size_literal ? 96 - kWave : kWave;  // the other wave size
  SHARED(int, part, [kFaultThreads]);
  const int t = threadIdx.x;
  const int end = fault == Fault::mask_off_by_one ? n + 1 : n;
  int sum = 0;
  for (int i = t; i < end; i += kFaultThreads) sum += in[blockIdx.x * stride + i];
  for (int mask = kLanes / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
  if (lane_id() == 0) part[wave_id()] = sum;
  if constexpr (fault != Fault::barrier_removed) syncthreads();
  if (t == 0) {
    sum = 0;
    for (unsigned i = 0; i < kFaultThreads / kWave; ++i) sum += part[i];
    out[blockIdx.x] = sum;
  }
}

// Blocks of 2 bytes of scale and 16 of nibbles, as in Q4_0, to 32 bytes each: four threads a block, 8 bytes a thread.
template <Fault fault> __global__ void unpack_kernel(const uint8_t *blocks, uint8_t *out, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x, block = i / 4, quarter = i % 4;
  if (fault != Fault::tail_guard_missing && block >= count) return;
  const uint8_t *const nibbles = blocks + 18 * (block < count ? block : 0) + 2 + 4 * quarter;
  uint32_t word;
  if constexpr (fault == Fault::misaligned_load) {
    word = *reinterpret_cast<const uint32_t *>(nibbles);
  } else if constexpr (fault == Fault::misaligned_vector) {
    word = bits_as<uint32_t>(load<4>(nibbles));
  } else {
    word = load_packed<uint32_t>(nibbles);
  }
  const Vec<uint32_t, 2> halves{{word & 0x0f0f0f0f, word >> 4 & 0x0f0f0f0f}};
  store(reinterpret_cast<uint32_t *>(out + 32 * block + 8 * quarter), halves);
}

// out = a b transposed by one wave, its tile of a moved through LDS; one tile a workgroup.
template <Fault fault> __global__ void product_kernel(const f16 *a, const f16 *b, float *out) {
  using M = Mma<f16>;
  SHARED(f16, tile, [M::kM][M::kK]);
  const int lane = lane_id();
  a += blockIdx.x * M::kM * M::kK;
  b += blockIdx.x * M::kN * M::kK;
  for (int i = lane; i < M::kM * M::kK; i += kWave) tile[i / M::kK][i % M::kK] = a[i];
  if constexpr (fault != Fault::syncwave_removed) syncwave();
  const auto sum = mma<M>(load_a<M>(tile[0], M::kK), load_b<M>(b, M::kK), typename M::C{});
  for (int i = 0; i < M::kC; ++i) {
    const int row = fault == Fault::row_map_wrong ? M::c_row(lane, i) ^ 1 : M::c_row(lane, i);
    out[(blockIdx.x * M::kM + row) * M::kN + M::c_col(lane, i)] = sum[i];
  }
}

// Half of the LDS there is, plus what the launch asks for.
__global__ void large_kernel(uint8_t *out) {
  SHARED(uint8_t, half, [lds_bytes(kArch) / 2]);
  half[threadIdx.x] = 1;
  out[threadIdx.x] = half[threadIdx.x];
}

// out[t] = t through LDS. `past` is 0: the compiler must not see the indices.
template <Fault fault> __global__ void lds_kernel(int *out, int past) {
  SHARED(int, before, [kFaultThreads]);
  SHARED(int, after, [kFaultThreads]);
  const int t = threadIdx.x;
  before[t] = t;
  if constexpr (fault != Fault::read_before_write) after[t] = t;
  syncthreads();
  if constexpr (fault == Fault::index_out_of_bounds) {
    if (t == 7) before[kFaultThreads + past] = 1;
  }
  if constexpr (fault == Fault::index_before_begin) {
    if (t == 7) before[past - 1] = 1;
  }
  syncthreads();
  out[t] = (before[t ^ 1] ^ 1) + after[t ^ 1] - (t ^ 1);
}

ROCFORGE_DEVICE int neighbour(int x) { return shuffle_xor(x, 1); }
ROCFORGE_DEVICE int neighbour_of_caller(int x ROCFORGE_SITE) { return shuffle_xor(x, 1 ROCFORGE_PASS_SITE); }

// out[t] = t ^ 1, with the threads of a workgroup meeting in the wrong way.
template <Fault fault> __global__ void meeting_kernel(int *out) {
  const int t = threadIdx.x;
  if constexpr (fault == Fault::divergent_barrier) {
    if (t >= 7) syncthreads();
  } else if constexpr (fault == Fault::exit_before_barrier) {
    if (t == 3) return;
    syncthreads();
  } else if constexpr (fault == Fault::two_barriers) {
    if (t < kWave) {
      syncthreads();
    } else {
      syncthreads();
    }
  } else if constexpr (fault == Fault::divergent_shuffle) {
    if (t < 10) out[t] = shuffle_xor(t, 1);
  } else if constexpr (fault == Fault::exit_before_shuffle) {
    if (t % kWave >= kWave / 2) return;
    out[t] = shuffle_xor(t, 1);
  } else if constexpr (fault == Fault::shuffle_meets_barrier) {
    if (t < kWave / 2) {
      out[t] = shuffle_xor(t, 1);
    } else {
      syncthreads();
    }
  } else if constexpr (fault == Fault::two_shuffles_in_helper) {
    if (t % kWave < kWave / 2) {
      out[t] = neighbour_of_caller(t);
    } else {
      out[t] = neighbour_of_caller(t + 1);
    }
  } else if constexpr (fault == Fault::divergent_broadcast) {
    out[t] = broadcast(t, t % 2);
  } else {
    syncthreads();
    out[t] = neighbour(t);
    syncthreads();
  }
}

// Each workgroup swaps neighbours through LDS, counts itself and leaves a number for the last one to add up.
template <Fault fault> __global__ void order_kernel(int *out, int *count, uint32_t *tickets, int *partial, int *total) {
  SHARED(int, swap, [kFaultThreads]);
  SHARED(uint32_t, ticket, [1]);
  const int t = threadIdx.x, i = blockIdx.x * kFaultThreads + t;
  swap[t] = t;
  if constexpr (fault == Fault::shuffle_orders_nothing) {
    (void)shuffle_xor(t, 1);
  } else {
    syncwave();
  }
  out[i] = swap[t ^ 1];
  if constexpr (fault == Fault::workgroups_race) {
    if (t == 0) out[(blockIdx.x + 1) % gridDim.x * kFaultThreads] = 1;
  }
  if constexpr (fault == Fault::vectors_overlap) {
    if (t < 2) store(out + blockIdx.x * kFaultThreads + 4 * t, Vec<int, 8>{});
  }
  if constexpr (fault == Fault::reader_and_writer_race) {
    if (t == 0 && blockIdx.x == 0) partial[0] = count[1];
    if (t == 0 && blockIdx.x == gridDim.x - 1) count[1] = 1;
  }
  if constexpr (fault == Fault::reader_behind_others) {
    // Every wave reads; then, after its own readers, one writes.
    if (blockIdx.x == 0 && t % kWave < 2) out[i] += count[1];
    syncwave();
    if (blockIdx.x == 0 && t == 0) count[1] = 1;
  }
  if (t == 0) {
    if (fault == Fault::atomic_and_plain_write && blockIdx.x == 1) {
      *count = 1;
    } else {
      atomic_add(count, 1);
    }
    partial[blockIdx.x] = static_cast<int>(blockIdx.x);
  }
  if constexpr (fault != Fault::ticket_without_barrier) syncthreads();
  if (t == 0) ticket[0] = take_ticket(tickets);
  syncthreads();
  if (ticket[0] == gridDim.x - 1 && t == 9) {
    int sum = 0;
    for (unsigned j = 0; j < gridDim.x; ++j) sum += partial[j];
    *total = sum;
  }
}

}  // namespace rocforge::gpu
