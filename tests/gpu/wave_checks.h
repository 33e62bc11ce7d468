// Wave operations, LDS, barriers and atomics against what they are defined to do.
#pragma once

#include "buffer.h"

namespace rocforge::gpu {

constexpr unsigned kCheckThreads = 256;

struct ThreeBytes {
  uint8_t v[3];
};
struct FiveWords {
  uint32_t v[5];
};

// Row r of `out` [rows][kCheckThreads]: an operation of every thread.
__global__ void wave_kernel(int *out) {
  const int t = threadIdx.x;
  int row = 0;
  const auto put = [&](int value) { out[row++ * kCheckThreads + t] = value; };
  for (int mask = 1; mask < kWave; mask *= 2) put(shuffle_xor(t, mask));
  for (int delta = 0; delta < kWave; delta += 5) {
    put(shuffle_up(t, delta));
    put(shuffle_down(t, delta));
    put(broadcast(t, delta));
  }
  put(shuffle(t, 3 * t + 1));
  const uint8_t byte = static_cast<uint8_t>(t);
  put(shuffle_xor(ThreeBytes{{0, byte, byte}}, 1).v[2]);
  put(static_cast<int>(shuffle_xor(FiveWords{{0, 0, 0, 0, static_cast<uint32_t>(t)}}, 1).v[4]));
  const LaneMask mask = ballot(t % 3 == 0);
  put(static_cast<int>(mask & 0xffffffff));
  put(static_cast<int>(mask >> 32));
  put(any(lane_id() == 5) + 2 * any(false) + 4 * all(lane_id() >= 0) + 8 * all(lane_id() != 5));
  put(reduce(t, [](int a, int b) { return a + b; }));
  put(reduce<8>(t, [](int a, int b) { return a > b ? a : b; }));
}

inline Failure check_wave() {
  constexpr int kMaxRows = 64;
  Buffer<int> out(size_t{kMaxRows} * kCheckThreads);
  const int wave = device_properties().wave_size;
  launch({"wave_kernel", dim3(1), kCheckThreads, nullptr}, wave_kernel, out.get());
  finish();
  for (int t = 0; t < static_cast<int>(kCheckThreads); ++t) {
    const int lane = t % wave, first = t - lane;
    int row = 0;
    const char *what = nullptr;
    const auto want = [&](const char *name, int value) {
      if (out[row++ * kCheckThreads + t] != value && !what) what = name;
    };
    for (int mask = 1; mask < wave; mask *= 2) want("shuffle_xor", t ^ mask);
    for (int delta = 0; delta < wave; delta += 5) {
      want("shuffle_up", lane < delta ? t : t - delta);
      want("shuffle_down", lane + delta < wave ? t + delta : t);
      want("broadcast", first + delta);
    }
    want("shuffle", first + (3 * t + 1) % wave);
    want("shuffle_xor of 3 bytes", t ^ 1);
    want("shuffle_xor of 20 bytes", t ^ 1);
    uint64_t mask = 0;
    int sum = 0;
    for (int i = 0; i < wave; ++i) {
      if ((first + i) % 3 == 0) mask |= uint64_t{1} << i;
      sum += first + i;
    }
    want("ballot", static_cast<int>(mask & 0xffffffff));
    want("ballot", static_cast<int>(mask >> 32));
    want("any, all", 1 + 4);
    want("reduce", sum);
    want("reduce of 8 lanes", t | 7);
    if (what) return std::string(what) + " in thread " + std::to_string(t);
  }
  return {};
}

// Reverses each workgroup's values through both kinds of LDS and sums them up in three ways.
__global__ void workgroup_kernel(const int *in, int *reversed, int *total, float *float_total, uint32_t *counter,
                                 int *partial, int *last_total) {
  SHARED(int, forward, [kCheckThreads]);
  SHARED(uint32_t, ticket, [1]);
  int *const backward = dynamic_lds<int>();
  const int t = threadIdx.x, n = blockDim.x, i = blockIdx.x * n + t;
  forward[t] = in[i];
  syncthreads();
  backward[t] = forward[n - 1 - t];
  syncthreads();
  reversed[i] = backward[t];
  atomic_add(total, in[i]);
  if (t == 0) {
    int sum = 0;
    for (int j = 0; j < n; ++j) sum += forward[j];
    partial[blockIdx.x] = sum;
    atomic_add(float_total, static_cast<float>(sum));
  }
  syncthreads();
  if (t == 0) ticket[0] = take_ticket(counter);
  syncthreads();
  if (ticket[0] != gridDim.x - 1) return;
  if (t == 1) {
    int sum = 0;
    for (unsigned j = 0; j < gridDim.x; ++j) sum += partial[j];
    *last_total = sum;
  }
}

inline Failure check_workgroup() {
  constexpr int kWorkgroups = 37, n = kWorkgroups * kCheckThreads;
  Buffer<int> in(n), reversed(n), partial(kWorkgroups), totals(2);
  Buffer<float> float_total(1);
  Buffer<uint32_t> counter(1);
  int sum = 0;
  for (int i = 0; i < n; ++i) sum += in[i] = i % 97;
  launch({"workgroup_kernel", dim3(kWorkgroups), kCheckThreads, nullptr, kCheckThreads * sizeof(int)}, workgroup_kernel,
         in.get(), reversed.get(), totals.get(), float_total.get(), counter.get(), partial.get(), totals.get() + 1);
  finish();
  for (int i = 0; i < n; ++i) {
    const int mirrored = i / kCheckThreads * kCheckThreads + kCheckThreads - 1 - i % kCheckThreads;
    if (reversed[i] != in[mirrored]) return "LDS: value " + std::to_string(i);
  }
  if (totals[0] != sum) return "atomic_add of integers";
  if (float_total[0] != static_cast<float>(sum)) return "atomic_add of floats";
  if (totals[1] != sum)
    return "take_ticket: the last workgroup saw " + std::to_string(totals[1]) + " of " + std::to_string(sum);
  return {};
}

// Workgroups of a grid of three dimensions, and arguments of other types than the parameters'.
__global__ void grid_kernel(int64_t offset, float scale, float *out) {
  if (threadIdx.x == 0) {
    const unsigned index = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    out[index] = static_cast<float>(offset) + scale * static_cast<float>(index);
  }
}

inline Failure check_launch() {
  Buffer<float> out(5 * 3 * 2);
  launch({"grid_kernel", dim3(5, 3, 2), kCheckThreads, nullptr}, grid_kernel, int8_t{7}, 2, out.get());
  finish();
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i] != 7.0f + 2.0f * static_cast<float>(i)) return "workgroup " + std::to_string(i);
  }
  try {
    launch({"grid_kernel", dim3(1), 2048, nullptr}, grid_kernel, 0, 0.0f, out.get());
  } catch (const std::runtime_error &error) {
    const bool named = std::string(error.what()).find("grid_kernel") != std::string::npos;
    return named ? "" : std::string("an error without the kernel's name: ") + error.what();
  }
  return "2048 threads a workgroup are no error";
}

}  // namespace rocforge::gpu
