// Types that all back ends share. Included by the vendor headers, which define ROCFORGE_DEVICE before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

namespace rocforge::gpu {

// One value for each pair of wave size and set of matrix instructions; gfx9 and gfx10 are used without any.
enum class Arch { gfx9, gfx90a, gfx942, gfx950, gfx10, gfx11, gfx12, sm80, sm90 };

// NVIDIA's: one set of instructions for a wave; sm90 has products of four waves besides, and more LDS.
constexpr bool is_nvidia(Arch arch) { return arch == Arch::sm80 || arch == Arch::sm90; }

constexpr int wave_size(Arch arch) { return arch <= Arch::gfx950 ? 64 : 32; }

// LDS that one workgroup may use on every part of the architecture.
constexpr size_t lds_bytes(Arch arch) {
  switch (arch) {
    case Arch::gfx950:
      return 160 << 10;
    case Arch::sm80:
      return 99 << 10;
    case Arch::sm90:
      return 227 << 10;
    default:
      return 64 << 10;
  }
}

// NVIDIA gives a workgroup 48 KiB, static and dynamic LDS together, without being asked. launch() asks when the dynamic
// part alone is above 32 KiB: below, the kernel's static arrays may take 16 KiB.
inline constexpr size_t kLdsUnasked = 48 << 10, kDynamicLdsUnasked = 32 << 10;

// LDS, static and dynamic, that a launch with so much dynamic LDS may use.
constexpr size_t lds_bytes_of_launch(Arch arch, size_t dynamic_lds) {
  return is_nvidia(arch) && dynamic_lds <= kDynamicLdsUnasked ? kLdsUnasked : lds_bytes(arch);
}

// The runtime's name of an architecture: "gfx90a:sramecc+:xnack-", "gfx1100", "sm_90".
inline Arch arch_named(std::string_view name) {
  struct Known {
    std::string_view prefix;
    Arch arch;
  };
  constexpr Known kKnown[] = {{"gfx90a", Arch::gfx90a}, {"gfx942", Arch::gfx942}, {"gfx950", Arch::gfx950},
                              {"gfx90", Arch::gfx9},    {"gfx10", Arch::gfx10},   {"gfx11", Arch::gfx11},
                              {"gfx120", Arch::gfx12},  {"sm_8", Arch::sm80},     {"sm_90", Arch::sm90},
                              {"sm_10", Arch::sm80},    {"sm_11", Arch::sm80},    {"sm_12", Arch::sm80}};
  for (const Known &known : kKnown) {
    if (name.substr(0, known.prefix.size()) == known.prefix) return known.arch;
  }
  throw std::runtime_error("this library has no kernels for the GPU architecture " + std::string(name));
}

struct DeviceProperties {
  Arch arch;
  int wave_size;
  int compute_units;
};

// What launch() needs beside the kernel and its arguments.
struct Launch {
  const char *kernel;  // its name in error messages
  dim3 grid;           // workgroups
  unsigned threads;    // of a workgroup: whole waves
  void *stream;
  size_t dynamic_lds = 0;  // bytes
};

// Keeps a parameter out of template argument deduction, so that an argument is converted to the parameter's type.
template <class T> struct Identity {
  using type = T;
};

using LaneMask = uint64_t;  // bit l: lane l

// 16-bit floats are bits in memory; to_float, from_float and pack are the only arithmetic on them.
struct f16 {
  uint16_t bits;
};
struct bf16 {
  uint16_t bits;
};

// N values side by side, moved by one instruction for each 16 bytes.
template <class T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Vec {
  T v[N];
  ROCFORGE_DEVICE T &operator[](int i) { return v[i]; }
  ROCFORGE_DEVICE const T &operator[](int i) const { return v[i]; }
};

template <class To, class From> ROCFORGE_DEVICE To bits_as(const From &from) {
  static_assert(sizeof(To) == sizeof(From), "bits_as keeps the size");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);  // HIP has a memcpy of its own, a loop over bytes
  return to;
}

ROCFORGE_DEVICE float to_float(float value) { return value; }
ROCFORGE_DEVICE float to_float(bf16 value) { return bits_as<float>(static_cast<uint32_t>(value.bits) << 16); }

// Rounds to nearest even; a NaN stays one.
template <class T> ROCFORGE_DEVICE T from_float(float value);
template <> ROCFORGE_DEVICE float from_float<float>(float value) { return value; }

// Two floats rounded to T, `low` in the low half.
template <class T> ROCFORGE_DEVICE uint32_t pack(float low, float high);

// bfloat16 in the upper half of the result. For processors without an instruction; both results are computed first, or
// the compiler branches.
ROCFORGE_DEVICE uint32_t round_to_bf16(float value) {
  const uint32_t bits = bits_as<uint32_t>(value);
  const uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
  const uint32_t quiet_nan = bits | 0x00400000;
  return value != value ? quiet_nan : rounded;
}

}  // namespace rocforge::gpu
