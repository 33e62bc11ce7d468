// The device language on the CPU: what csrc/hip/gpu.h includes under -DROCFORGE_EMULATE=<architecture>.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

#include "emu.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

#define ROCFORGE_DEVICE inline __attribute__((always_inline))
// A barrier or wave operation knows the line that called it. A helper around one takes and passes that line on, so that
// two calls of the helper are two places: T f(T x ROCFORGE_SITE) { return shuffle_xor(x, 1 ROCFORGE_PASS_SITE); }
#define ROCFORGE_SITE \
  , [[maybe_unused]] const char *site_file = __builtin_FILE(), [[maybe_unused]] int site_line = __builtin_LINE()
#define ROCFORGE_PASS_SITE , site_file, site_line
#define ROCFORGE_INDEXED

#define ROCFORGE_TABLE inline constexpr

#define SHARED(T, name, dims)                                                    \
  static ::emu::LdsArray rocforge_lds_##name{#name, sizeof(T dims), 0, nullptr}; \
  auto &name = *static_cast<T(*) dims>(::emu::lds_array(rocforge_lds_##name))

#include "hip/gpu/types.h"

namespace rocforge::gpu {

inline constexpr Arch kArch = Arch::ROCFORGE_EMULATE;
inline constexpr int kWave = wave_size(kArch);

inline DeviceProperties device_properties() { return {kArch, kWave, /*compute_units=*/16}; }

template <class... Parameters>
void launch(const Launch &config, void (*kernel)(Parameters...), typename Identity<Parameters>::type... arguments) {
  const auto thread = [&] { kernel(arguments...); };
  emu::launch(
      {config.kernel, config.grid, config.threads, config.dynamic_lds, kWave,
       lds_bytes_of_launch(kArch, config.dynamic_lds)},
      [](const void *context) { (*static_cast<decltype(thread) *>(context))(); }, &thread);
}

// ---- Conversions

ROCFORGE_DEVICE float to_float(f16 value) { return static_cast<float>(bits_as<_Float16>(value)); }

template <> ROCFORGE_DEVICE f16 from_float<f16>(float value) { return bits_as<f16>(static_cast<_Float16>(value)); }
template <> ROCFORGE_DEVICE bf16 from_float<bf16>(float value) {
  return {static_cast<uint16_t>(round_to_bf16(value) >> 16)};
}
template <> ROCFORGE_DEVICE uint32_t pack<f16>(float low, float high) {
  return from_float<f16>(low).bits | static_cast<uint32_t>(from_float<f16>(high).bits) << 16;
}
template <> ROCFORGE_DEVICE uint32_t pack<bf16>(float low, float high) {
  return round_to_bf16(low) >> 16 | (round_to_bf16(high) & 0xffff0000);
}

// ---- Memory

template <int N, class T> ROCFORGE_DEVICE Vec<T, N> load(const T *p ROCFORGE_SITE) {
  emu::require_aligned(p, alignof(Vec<T, N>), {site_file, site_line});
  return *reinterpret_cast<const Vec<T, N> *>(p);
}
template <class T, int N> ROCFORGE_DEVICE void store(T *p, const Vec<T, N> &vector ROCFORGE_SITE) {
  emu::require_aligned(p, alignof(Vec<T, N>), {site_file, site_line});
  *reinterpret_cast<Vec<T, N> *>(p) = vector;
}
template <int N, class T> ROCFORGE_DEVICE Vec<T, N> load_streaming(const T *p ROCFORGE_SITE) {
  static_assert(sizeof(Vec<T, N>) % 16 == 0, "whole 16-byte words");
  return load<N>(p ROCFORGE_PASS_SITE);
}
template <class T, int N> ROCFORGE_DEVICE void store_streaming(T *p, const Vec<T, N> &vector ROCFORGE_SITE) {
  static_assert(sizeof(vector) % 16 == 0, "whole 16-byte words");
  store(p, vector ROCFORGE_PASS_SITE);
}

template <class T, int kAlign = 1> ROCFORGE_DEVICE T load_packed(const uint8_t *p ROCFORGE_SITE) {
  emu::require_aligned(p, kAlign, {site_file, site_line});
  T value;
  memcpy(&value, p, sizeof value);
  return value;
}

ROCFORGE_DEVICE uint32_t select_bytes(uint64_t table, uint32_t indices) {
  uint32_t selected = 0;
  for (int i = 0; i < 32; i += 8) selected |= (table >> 8 * (indices >> i & 7) & 0xff) << i;
  return selected;
}
ROCFORGE_DEVICE float float_from_int8(uint32_t word, int i) { return static_cast<int8_t>(word >> 8 * i); }

template <class T, int kAlign = 16> T *dynamic_lds() { return static_cast<T *>(emu::dynamic_lds()); }

// ---- Waves and workgroups

inline void syncthreads(const char *site_file = __builtin_FILE(), int site_line = __builtin_LINE()) {
  emu::syncthreads({site_file, site_line});
}
inline void syncwave(const char *site_file = __builtin_FILE(), int site_line = __builtin_LINE()) {
  emu::syncwave({site_file, site_line});
}
inline LaneMask ballot(bool predicate ROCFORGE_SITE) { return emu::ballot(predicate, {site_file, site_line}); }

template <class T> T move(emu::Move kind, const T &value, int argument, emu::Site site) {
  static_assert(std::is_trivially_copyable_v<T>);
  T moved;
  emu::move(kind, &value, &moved, sizeof value, argument, site);
  return moved;
}
template <class T> T shuffle(const T &value, int source ROCFORGE_SITE) {
  return move(emu::Move::index, value, source, {site_file, site_line});
}
template <class T> T shuffle_xor(const T &value, int mask ROCFORGE_SITE) {
  return move(emu::Move::exclusive_or, value, mask, {site_file, site_line});
}
template <class T> T shuffle_up(const T &value, int delta ROCFORGE_SITE) {
  return move(emu::Move::up, value, delta, {site_file, site_line});
}
template <class T> T shuffle_down(const T &value, int delta ROCFORGE_SITE) {
  return move(emu::Move::down, value, delta, {site_file, site_line});
}
template <class T> T broadcast(const T &value, int source ROCFORGE_SITE) {
  return move(emu::Move::broadcast, value, source, {site_file, site_line});
}

// Compiler builtins, which the race check sees as atomic.
template <class T> T atomic_add(T *address, T value) {
  if constexpr (std::is_integral_v<T>) {
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
  } else {
    auto *const word = reinterpret_cast<uint32_t *>(address);
    uint32_t before = __atomic_load_n(word, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(word, &before, bits_as<uint32_t>(bits_as<T>(before) + value), false,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return bits_as<T>(before);
  }
}
inline uint32_t take_ticket(uint32_t *counter) { return __atomic_fetch_add(counter, 1u, __ATOMIC_ACQ_REL); }

}  // namespace rocforge::gpu
