// The device language for AMD GPUs (clang or hipcc). Included by gpu.h only.
#pragma once

#include <hip/hip_runtime.h>

#define ROCFORGE_DEVICE __device__ __forceinline__
#define ROCFORGE_SITE  // see tests/emulation/device.h
#define ROCFORGE_PASS_SITE
#define ROCFORGE_INDEXED
#define SHARED(T, name, dims) __shared__ __align__(16) T name dims
#define ROCFORGE_TABLE [[maybe_unused]] static __device__ constexpr
#define ROCFORGE_RUNTIME(name) hip##name

#include "hip/gpu/types.h"

namespace rocforge::gpu {

#if !defined(__HIP_DEVICE_COMPILE__)
inline constexpr Arch kArch = Arch::gfx942;  // the host pass checks the types of device code and throws it away
#elif defined(__gfx90a__)
inline constexpr Arch kArch = Arch::gfx90a;
#elif defined(__gfx942__)
inline constexpr Arch kArch = Arch::gfx942;
#elif defined(__gfx950__)
inline constexpr Arch kArch = Arch::gfx950;
#elif defined(__GFX9__)
inline constexpr Arch kArch = Arch::gfx9;
#elif defined(__GFX10__)
inline constexpr Arch kArch = Arch::gfx10;
#elif defined(__GFX11__)
inline constexpr Arch kArch = Arch::gfx11;
#elif defined(__gfx1200__) || defined(__gfx1201__)
inline constexpr Arch kArch = Arch::gfx12;
#else
  #error "unknown AMD architecture: docs/gpu.md says how to add one"
#endif
inline constexpr int kWave = wave_size(kArch);

// ---- Conversions

ROCFORGE_DEVICE float to_float(f16 value) { return static_cast<float>(bits_as<_Float16>(value)); }

template <> ROCFORGE_DEVICE f16 from_float<f16>(float value) {
#if defined(__HIP_DEVICE_COMPILE__)
  // No instruction. Without it the cast of a product a * b becomes v_fma_mixlo_f16 a, b, +0, which turns -0 into +0.
  asm("" : "+v"(value));
#endif
  return bits_as<f16>(static_cast<_Float16>(value));
}
template <> ROCFORGE_DEVICE bf16 from_float<bf16>(float value) {
  return {static_cast<uint16_t>(round_to_bf16(value) >> 16)};
}
template <> ROCFORGE_DEVICE uint32_t pack<f16>(float low, float high) {
  return from_float<f16>(low).bits | static_cast<uint32_t>(from_float<f16>(high).bits) << 16;
}
template <> ROCFORGE_DEVICE uint32_t pack<bf16>(float low, float high) {
#if defined(__gfx950__)
  typedef float Floats __attribute__((ext_vector_type(2)));
  typedef __bf16 Pair __attribute__((ext_vector_type(2)));
  return bits_as<uint32_t>(__builtin_convertvector((Floats{low, high}), Pair));
#else
  return __builtin_amdgcn_perm(round_to_bf16(high), round_to_bf16(low), 0x07060302);
#endif
}

// ---- Memory

template <int N, class T> ROCFORGE_DEVICE Vec<T, N> load(const T *p) { return *reinterpret_cast<const Vec<T, N> *>(p); }
template <class T, int N> ROCFORGE_DEVICE void store(T *p, const Vec<T, N> &vector) {
  *reinterpret_cast<Vec<T, N> *>(p) = vector;
}

typedef uint32_t Words __attribute__((ext_vector_type(4)));
template <int N, class T> ROCFORGE_DEVICE Vec<T, N> load_streaming(const T *p) {
  static_assert(sizeof(Vec<T, N>) % sizeof(Words) == 0, "whole 16-byte words");
  constexpr int kWords = sizeof(Vec<T, N>) / sizeof(Words);
  Vec<Words, kWords> words;
#pragma unroll
  for (int i = 0; i < kWords; ++i) words[i] = __builtin_nontemporal_load(reinterpret_cast<const Words *>(p) + i);
  return bits_as<Vec<T, N>>(words);
}
template <class T, int N> ROCFORGE_DEVICE void store_streaming(T *p, const Vec<T, N> &vector) {
  static_assert(sizeof(vector) % sizeof(Words) == 0, "whole 16-byte words");
  constexpr int kWords = sizeof(vector) / sizeof(Words);
  const auto words = bits_as<Vec<Words, kWords>>(vector);
#pragma unroll
  for (int i = 0; i < kWords; ++i) __builtin_nontemporal_store(words[i], reinterpret_cast<Words *>(p) + i);
}

// One instruction: the hardware takes any alignment.
template <class T, int kAlign = 1> ROCFORGE_DEVICE T load_packed(const uint8_t *p) {
  T value;
  __builtin_memcpy(&value, p, sizeof value);
  return value;
}

// Byte i of the result: the byte of `table` that byte i of `indices` (0 .. 7) names.
ROCFORGE_DEVICE uint32_t select_bytes(uint64_t table, uint32_t indices) {
  return __builtin_amdgcn_perm(static_cast<uint32_t>(table >> 32), static_cast<uint32_t>(table), indices);
}
// Signed byte i of a word.
ROCFORGE_DEVICE float float_from_int8(uint32_t word, int i) { return static_cast<int8_t>(word >> 8 * i); }

// ---- Waves and workgroups

ROCFORGE_DEVICE void syncthreads() { __syncthreads(); }

// The lanes run in step: only the compiler has to be kept from reordering.
ROCFORGE_DEVICE void syncwave() {
  __builtin_amdgcn_fence(__ATOMIC_ACQ_REL, "wavefront");
  __builtin_amdgcn_wave_barrier();
}

ROCFORGE_DEVICE LaneMask ballot(bool predicate) {
#if defined(__HIP_DEVICE_COMPILE__) && !defined(__GFX9__)
  return __builtin_amdgcn_ballot_w32(predicate);
#else
  return __builtin_amdgcn_ballot_w64(predicate);
#endif
}

// Applies a move of 32-bit registers between lanes to a value of any size.
template <class T, class Move> ROCFORGE_DEVICE T move_words(const T &value, Move move) {
  uint32_t words[(sizeof(T) + 3) / 4] = {};
  __builtin_memcpy(words, &value, sizeof value);
#pragma unroll
  for (uint32_t &word : words) word = move(word);
  T moved;
  __builtin_memcpy(&moved, words, sizeof moved);
  return moved;
}
template <class T> ROCFORGE_DEVICE T shuffle(const T &value, int source) {
  return move_words(value, [=](uint32_t word) -> uint32_t { return __builtin_amdgcn_ds_bpermute(4 * source, word); });
}
template <class T> ROCFORGE_DEVICE T shuffle_xor(const T &value, int mask) {
  return shuffle(value, static_cast<int>(threadIdx.x % kWave) ^ mask);
}
template <class T> ROCFORGE_DEVICE T shuffle_up(const T &value, int delta) {
  const int lane = threadIdx.x % kWave;
  return shuffle(value, lane < delta ? lane : lane - delta);
}
template <class T> ROCFORGE_DEVICE T shuffle_down(const T &value, int delta) {
  const int lane = threadIdx.x % kWave;
  return shuffle(value, lane + delta < kWave ? lane + delta : lane);
}
template <class T> ROCFORGE_DEVICE T broadcast(const T &value, int source) {
  return move_words(value, [=](uint32_t word) -> uint32_t { return __builtin_amdgcn_readlane(word, source); });
}

template <class T> ROCFORGE_DEVICE T atomic_add(T *address, T value) { return atomicAdd(address, value); }
ROCFORGE_DEVICE uint32_t take_ticket(uint32_t *counter) {
  return __hip_atomic_fetch_add(counter, 1u, __ATOMIC_ACQ_REL, __HIP_MEMORY_SCOPE_AGENT);
}

template <class T> ROCFORGE_DEVICE T *dynamic_lds() {
  extern __shared__ __align__(16) unsigned char rocforge_dynamic_lds[];
  return reinterpret_cast<T *>(rocforge_dynamic_lds);
}

// ---- Host

inline constexpr auto kComputeUnitCount = hipDeviceAttributeMultiprocessorCount;
inline constexpr auto kDynamicLdsLimit = hipFuncAttributeMaxDynamicSharedMemorySize;

// Such as "gfx942:sramecc+:xnack-".
inline hipError_t get_arch_name(int device, std::string &name) {
  hipDeviceProp_t properties;
  const hipError_t error = hipGetDeviceProperties(&properties, device);
  if (error == hipSuccess) name = properties.gcnArchName;
  return error;
}

}  // namespace rocforge::gpu
