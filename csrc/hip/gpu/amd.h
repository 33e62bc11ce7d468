// The device language for AMD GPUs (clang or hipcc). Included by gpu.h only.
#pragma once

#include <hip/hip_runtime.h>

#define ROCFORGE_INDEXED
#define ROCFORGE_RUNTIME(name) hip##name

#include "hip/gpu/hardware.h"

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

typedef uint32_t NativeWord __attribute__((ext_vector_type(4)));
ROCFORGE_DEVICE Word16 load_word_streaming(const Word16 *p) {
  return bits_as<Word16>(__builtin_nontemporal_load(reinterpret_cast<const NativeWord *>(p)));
}
ROCFORGE_DEVICE void store_word_streaming(Word16 *p, const Word16 &word) {
  __builtin_nontemporal_store(bits_as<NativeWord>(word), reinterpret_cast<NativeWord *>(p));
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

ROCFORGE_DEVICE uint32_t take_ticket(uint32_t *counter) {
  return __hip_atomic_fetch_add(counter, 1u, __ATOMIC_ACQ_REL, __HIP_MEMORY_SCOPE_AGENT);
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
