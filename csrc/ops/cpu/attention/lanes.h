// Vectors as wide as the processor's registers (GNU vector extensions) and the functions of them that softmax needs.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "formats/host.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class Acc> struct VectorOf;
template <> struct VectorOf<float> {
  typedef float Floats __attribute__((vector_size(kVectorBytes)));
  typedef int32_t Ints __attribute__((vector_size(kVectorBytes)));
};
template <> struct VectorOf<double> {
  typedef double Floats __attribute__((vector_size(kVectorBytes)));
  typedef int64_t Ints __attribute__((vector_size(kVectorBytes)));
};
template <class Acc> using Vec = typename VectorOf<Acc>::Floats;
template <class Acc> using IntVec = typename VectorOf<Acc>::Ints;
template <class Acc> using Int = std::conditional_t<sizeof(Acc) == 4, int32_t, int64_t>;  // one lane of IntVec

template <class Acc> constexpr int kLanes = kVectorBytes / sizeof(Acc);
template <class Acc> constexpr Acc kInfinity = std::numeric_limits<Acc>::infinity();

template <class Acc> ROCFORGE_HD int64_t round_up_to_lanes(int64_t n) {
  return (n + kLanes<Acc> - 1) / kLanes<Acc> * kLanes<Acc>;
}

template <class Acc> ROCFORGE_HD Vec<Acc> load(const Acc *p) {
  Vec<Acc> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class Acc> ROCFORGE_HD IntVec<Acc> load_ints(const Int<Acc> *p) {
  IntVec<Acc> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class Acc> ROCFORGE_HD void store(Acc *p, Vec<Acc> v) { std::memcpy(p, &v, sizeof v); }
template <class Acc> ROCFORGE_HD Vec<Acc> broadcast(Acc x) { return x - Vec<Acc>{}; }

// A function of the C library, lane by lane: for double, which is here to check gradients and need not be fast.
template <class Function> ROCFORGE_HD Vec<double> each_lane(Vec<double> x, Function function) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = function(x[i]);
  return x;
}

// e^x, one unit in the last place; 0 where the result would be below the smallest normal number.
ROCFORGE_HD Vec<float> exp(Vec<float> x) {
  const Vec<float> lowest = broadcast(-87.33654f), zero{};  // log(2^-126)
  const Vec<float> clamped = x < lowest ? lowest : x;       // a NaN stays
  // x = n log(2) + r: adding 1.5 * 2^23 leaves the nearest integer in the low bits, and n * log_2_high is exact.
  const float log_2_high = 0x1.62ep-1f, log_2_low = 0x1.0bfbe8p-15f;
  const Vec<float> shifted = clamped * 1.44269504f + 0x1.8p23f;
  const Vec<float> n = shifted - 0x1.8p23f;
  const Vec<float> r = clamped - n * log_2_high - n * log_2_low;
  // Taylor's series of e^r: |r| <= log(2) / 2, the next term is 5e-9.
  Vec<float> power = broadcast(1.0f / 5040);
  power = power * r + 1.0f / 720;
  power = power * r + 1.0f / 120;
  power = power * r + 1.0f / 24;
  power = power * r + 1.0f / 6;
  power = power * r + 1.0f / 2;
  power = power * r + 1.0f;
  power = power * r + 1.0f;
  const IntVec<float> exponent = ((IntVec<float>)shifted - 0x4b400000 + 127) << 23;
  return x < lowest ? zero : power * (Vec<float>)exponent;
}
ROCFORGE_HD Vec<double> exp(Vec<double> x) {
  return each_lane(x, [](double lane) { return std::exp(lane); });
}

// Within two units in the last place.
ROCFORGE_HD Vec<float> tanh(Vec<float> x) {
  const Vec<float> magnitude = x < 0 ? -x : x, square = x * x;
  // Odd polynomial with the least largest relative error on |x| <= 0.625: 4.4e-9.
  Vec<float> series = broadcast(-0.005704986397176981f);
  series = series * square + 0.02063908614218235f;
  series = series * square - 0.05373971536755562f;
  series = series * square + 0.13331441581249237f;
  series = series * square - 0.3333328068256378f;
  const Vec<float> near_zero = x + x * square * series;
  const Vec<float> limit = broadcast(20.0f), bounded = magnitude > limit ? limit : magnitude;
  const Vec<float> power = exp(2 * bounded);
  const Vec<float> far = 1.0f - 2.0f / (power + 1.0f);
  return magnitude < 0.625f ? near_zero : x < 0 ? -far : far;
}
ROCFORGE_HD Vec<double> tanh(Vec<double> x) {
  return each_lane(x, [](double lane) { return std::tanh(lane); });
}

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
