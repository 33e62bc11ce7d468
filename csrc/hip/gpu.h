// The device language of csrc/hip: kernels include this first and see one language for HIP (AMD), CUDA (NVIDIA) and the
// emulation on the CPU. Vendor differences live in the header chosen below and in mma.h, and nowhere else.
//
// Rules for kernels, most of which the emulation enforces:
//   - Workgroups are one-dimensional and whole waves.
//   - No thread leaves before the last barrier or wave operation: guard the store instead.
//   - No barrier or wave operation stands under a condition that differs between the threads it joins.
//   - A wave operation does not order memory: LDS passed between lanes of one wave needs syncwave().
//   - kWave and kArch are for device code: host code asks device_properties().
//
// clang-format off
// Besides what is written out here and in gpu/types.h, the chosen header supplies in namespace rocforge::gpu
//   kArch, kWave                          the architecture compiled for, and its lanes a wave
//   ROCFORGE_INDEXED                      before the type of a const kernel parameter with an array indexed at run time
//   SHARED(float, tile, [16][17]);        LDS of the workgroup, contents undefined
//   dynamic_lds<T, kAlign>()              the launch's dynamic LDS, aligned to 16 bytes when left out
//   syncthreads()                         orders memory between the threads of the workgroup
//   syncwave()                            orders LDS between the lanes of the wave
//   ballot(p)                             LaneMask of the lanes where p holds
//   shuffle(x, lane)                      x of that lane (modulo the wave size); T of any size
//   shuffle_xor(x, mask)                  x of lane ^ mask
//   shuffle_up(x, n), shuffle_down(x, n)  x of lane - n, lane + n; its own where there is no such lane
//   broadcast(x, lane)                    x of that lane, the same number in all lanes: the result is uniform
//   atomic_add(p, x)                      device-wide, relaxed, returns the value before; int, unsigned, float
//   take_ticket(counter)                  how many workgroups came before. One thread calls it after syncthreads(); what
//                                         those wrote before theirs is visible after it and another syncthreads()
//   load<N>(p), store(p, vec)             Vec<T, N> at p, aligned as the vector is (to 16 bytes at most)
//   load_streaming<N>, store_streaming    the same for data used once, which need not stay in the caches
//   load_packed<T, kAlign>(p)              an unsigned integer of packed bytes, at a multiple of kAlign (1 when left out)
//   select_bytes, float_from_int8         for gpu/formats.h
//   launch, device_properties             on the host: gpu/launch.h
// clang-format on
#pragma once

#if defined(ROCFORGE_EMULATE)
  #include "device.h"  // tests/emulation
#elif defined(__HIP__)
  #include "hip/gpu/amd.h"
#elif defined(__CUDACC__)
  #include "hip/gpu/nvidia.h"
#else
  #error "csrc/hip/*.hip needs a HIP or CUDA compiler, or -DROCFORGE_EMULATE=<architecture>"
#endif
#if !defined(ROCFORGE_EMULATE)
  #include "hip/gpu/launch.h"
#endif
#include "hip/gpu/formats.h"

namespace rocforge::gpu {

ROCFORGE_DEVICE int lane_id() { return threadIdx.x % kWave; }
ROCFORGE_DEVICE int wave_id() { return threadIdx.x / kWave; }

ROCFORGE_DEVICE bool any(bool predicate ROCFORGE_SITE) { return ballot(predicate ROCFORGE_PASS_SITE) != 0; }
ROCFORGE_DEVICE bool all(bool predicate ROCFORGE_SITE) { return ballot(!predicate ROCFORGE_PASS_SITE) == 0; }

// Combines the values of each group of kLanes neighbouring lanes (a power of two); all of them get the result.
template <int kLanes = kWave, class T, class Combine> ROCFORGE_DEVICE T reduce(T value, Combine combine ROCFORGE_SITE) {
#pragma unroll
  for (int mask = kLanes / 2; mask > 0; mask /= 2) {
    value = combine(value, shuffle_xor(value, mask ROCFORGE_PASS_SITE));
  }
  return value;
}

// N floats (N even) rounded to T, ready for one store.
template <class T, int N> ROCFORGE_DEVICE Vec<T, N> convert(const float (&values)[N]) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return bits_as<Vec<T, N>>(values);
  } else {
    Vec<uint32_t, N / 2> words;
#pragma unroll
    for (int i = 0; i < N / 2; ++i) words[i] = pack<T>(values[2 * i], values[2 * i + 1]);
    return bits_as<Vec<T, N>>(words);
  }
}

}  // namespace rocforge::gpu
