// The device language for NVIDIA GPUs (nvcc). Included by gpu.h only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <type_traits>

#define ROCFORGE_INDEXED __grid_constant__
#define ROCFORGE_RUNTIME(name) cuda##name

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  #error "compute capability 8.0 or newer is needed"
#endif

#include "hip/gpu/hardware.h"

namespace rocforge::gpu {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr Arch kArch = Arch::sm90;
#else
inline constexpr Arch kArch = Arch::sm80;
#endif
inline constexpr int kWave = wave_size(kArch);

// ---- Conversions

ROCFORGE_DEVICE float to_float(f16 value) { return __half2float(bits_as<__half>(value)); }

template <> ROCFORGE_DEVICE f16 from_float<f16>(float value) { return bits_as<f16>(__float2half_rn(value)); }
template <> ROCFORGE_DEVICE bf16 from_float<bf16>(float value) { return bits_as<bf16>(__float2bfloat16_rn(value)); }
template <> ROCFORGE_DEVICE uint32_t pack<f16>(float low, float high) {
  return bits_as<uint32_t>(__floats2half2_rn(low, high));
}
template <> ROCFORGE_DEVICE uint32_t pack<bf16>(float low, float high) {
  return bits_as<uint32_t>(__floats2bfloat162_rn(low, high));
}

// ---- Memory

ROCFORGE_DEVICE Word16 load_word_streaming(const Word16 *p) {
  return bits_as<Word16>(__ldcs(reinterpret_cast<const uint4 *>(p)));
}
ROCFORGE_DEVICE void store_word_streaming(Word16 *p, const Word16 &word) {
  __stcs(reinterpret_cast<uint4 *>(p), bits_as<uint4>(word));
}

// The hardware takes aligned words only. Without an alignment these read the words that hold the wanted bytes and no
// other: the word after them may lie outside the tensor. Subtracting from the pointer, and not masking it, lets the
// compiler keep its address space.
ROCFORGE_DEVICE uint32_t bytes_before(const uint8_t *p) { return reinterpret_cast<uintptr_t>(p) & 3; }
ROCFORGE_DEVICE uint32_t bits_before(const uint8_t *p) { return 8 * bytes_before(p); }
ROCFORGE_DEVICE uint32_t word_of(const uint8_t *p) { return *reinterpret_cast<const uint32_t *>(p - bytes_before(p)); }

// sizeof(T) bytes at p, a multiple of kAlign. T: an unsigned integer.
template <class T, int kAlign = 1> ROCFORGE_DEVICE T load_packed(const uint8_t *p) {
  if constexpr (kAlign >= sizeof(T)) {
    return *reinterpret_cast<const T *>(p);
  } else if constexpr (kAlign > 1 || sizeof(T) > 4) {  // the two halves, the second at least as well aligned
    using Half = std::conditional_t<sizeof(T) == 8, uint32_t, uint16_t>;
    constexpr int kHalf = sizeof(T) / 2;
    return load_packed<Half, kAlign>(p) | static_cast<T>(load_packed<Half, kAlign>(p + kHalf)) << 8 * kHalf;
  } else {
    return static_cast<T>(__funnelshift_r(word_of(p), word_of(p + sizeof(T) - 1), bits_before(p)));
  }
}

// The instruction takes one index in each nibble of its lower half.
ROCFORGE_DEVICE uint32_t select_bytes(uint64_t table, uint32_t indices) {
  const uint32_t nibbles = __byte_perm(indices | indices >> 4, 0, 0x4420);
  return __byte_perm(static_cast<uint32_t>(table), static_cast<uint32_t>(table >> 32), nibbles);
}
// Conversions run at a quarter of the rate. This puts byte + 128 into the low bits of 2^23 and takes both off again.
ROCFORGE_DEVICE float float_from_int8(uint32_t word, int i) {
  return bits_as<float>(__byte_perm(word ^ 0x80808080, 0x4b000000, 0x7650 + i)) - (0x1p23f + 128.0f);
}

// ---- Waves and workgroups

ROCFORGE_DEVICE void syncwave() { __syncwarp(); }

inline constexpr uint32_t kAllLanes = 0xffffffff;

ROCFORGE_DEVICE LaneMask ballot(bool predicate) { return __ballot_sync(kAllLanes, predicate); }

template <class T> ROCFORGE_DEVICE T shuffle(const T &value, int source) {
  return move_words(value, [=](uint32_t word) { return __shfl_sync(kAllLanes, word, source); });
}
template <class T> ROCFORGE_DEVICE T shuffle_xor(const T &value, int mask) {
  return move_words(value, [=](uint32_t word) { return __shfl_xor_sync(kAllLanes, word, mask); });
}
template <class T> ROCFORGE_DEVICE T shuffle_up(const T &value, int delta) {
  return move_words(value, [=](uint32_t word) { return __shfl_up_sync(kAllLanes, word, delta); });
}
template <class T> ROCFORGE_DEVICE T shuffle_down(const T &value, int delta) {
  return move_words(value, [=](uint32_t word) { return __shfl_down_sync(kAllLanes, word, delta); });
}
template <class T> ROCFORGE_DEVICE T broadcast(const T &value, int source) { return shuffle(value, source); }

ROCFORGE_DEVICE uint32_t take_ticket(uint32_t *counter) {
  __threadfence();
  const uint32_t before = atomicAdd(counter, 1u);
  __threadfence();
  return before;
}

// ---- Host

inline constexpr auto kComputeUnitCount = cudaDevAttrMultiProcessorCount;
inline constexpr auto kDynamicLdsLimit = cudaFuncAttributeMaxDynamicSharedMemorySize;

constexpr bool compiled_for(int arch) {
  for (const int known : {__CUDA_ARCH_LIST__}) {
    if (known == arch) return true;
  }
  return false;
}

// Such as "sm_90"; "sm_80" where its own code is missing and that of an older GPU runs.
inline cudaError_t get_arch_name(int device, std::string &name) {
  int major = 0, minor = 0;
  cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  name = major == 9 && !compiled_for(900) ? "sm_80" : "sm_" + std::to_string(major) + std::to_string(minor);
  return error;
}

}  // namespace rocforge::gpu
