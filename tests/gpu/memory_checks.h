// Conversions, vectors and unaligned loads against what they are defined to do.
#pragma once

#include <cmath>

#include "buffer.h"
#include "formats/common.h"

namespace rocforge::gpu {

// Bits of `value` rounded to nearest even in a format of `mantissa` bits and the given smallest normal exponent, by
// arithmetic in double that shares nothing with the code under test.
inline uint16_t reference_round(float value, int mantissa, int min_exponent, int max_exponent) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const uint16_t infinity = static_cast<uint16_t>(((1 << (15 - mantissa)) - 1) << mantissa);
  const double magnitude = std::fabs(static_cast<double>(value));
  if (std::isinf(value)) return sign | infinity;
  if (magnitude == 0) return sign;
  int exponent = std::ilogb(magnitude);
  if (exponent < min_exponent) exponent = min_exponent;
  const double unit = std::ldexp(1.0, exponent - mantissa);
  double steps = std::nearbyint(magnitude / unit);  // to even; the division is exact
  if (steps == std::ldexp(2.0, mantissa)) {
    steps /= 2;
    ++exponent;
  }
  if (exponent > max_exponent) return sign | infinity;
  const int biased = steps < std::ldexp(1.0, mantissa) ? 0 : exponent - min_exponent + 1;
  const int fraction = static_cast<int>(steps) & ((1 << mantissa) - 1);
  return static_cast<uint16_t>(sign | biased << mantissa | fraction);
}
inline uint16_t reference_f16(float value) { return reference_round(value, 10, -14, 15); }
inline uint16_t reference_bf16(float value) { return reference_round(value, 7, -126, 127); }

// Values n of 8 floats each to T, through every way there is.
template <class T> __global__ void round_kernel(const float *in, T *converted, T *streamed, T *single) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  float values[8];
  const Vec<float, 8> loaded = load<8>(in + 8 * i);
  for (int j = 0; j < 8; ++j) values[j] = loaded[j];
  store(converted + 8 * i, convert<T>(values));
  store_streaming(streamed + 8 * i, convert<T>(values));
  for (int j = 0; j < 8; ++j) single[8 * i + j] = from_float<T>(values[j]);
}

template <class T> Failure check_rounding(uint16_t (*reference)(float)) {
  constexpr int kWorkgroups = 64, n = kWorkgroups * 256 * 8;
  Buffer<float> in(n);
  for (int i = 0; i < n; ++i) {
    // All exponents and signs; mantissas on, beside and between the ties of both formats.
    const uint32_t mantissas[] = {0,      1,      0x0fff, 0x1000, 0x1001,  0x2fff,
                                  0x3000, 0x7fff, 0x8000, 0x8001, 0x18000, 0x7fffff};
    const uint32_t spread = static_cast<uint32_t>(i / 12) * 0x9e3779b1u;
    const uint32_t bits =
        (static_cast<uint32_t>(i) % 512) << 23 | ((mantissas[i % 12] ^ (i % 24 < 12 ? 0 : spread)) & 0x7fffff);
    memcpy(&in[i], &bits, sizeof bits);
  }
  Buffer<T> converted(n), streamed(n), single(n);
  launch({"round_kernel", dim3(kWorkgroups), 256, nullptr}, round_kernel<T>, in.get(), converted.get(), streamed.get(),
         single.get());
  finish();
  for (int i = 0; i < n; ++i) {
    for (Buffer<T> *out : {&converted, &streamed, &single}) {
      const uint16_t got = (*out)[i].bits;
      const uint16_t infinity = reference(INFINITY);
      if (std::isnan(in[i]) ? (got & 0x7fff) > infinity : got == reference(in[i])) continue;
      return std::to_string(in[i]) + " became bits " + std::to_string(got);
    }
  }
  return {};
}

__global__ void widen_kernel(float *halves, float *bfloats) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  halves[i] = to_float(f16{static_cast<uint16_t>(i)});
  bfloats[i] = to_float(bf16{static_cast<uint16_t>(i)});
}

inline Failure check_widening() {
  constexpr int n = 1 << 16;
  Buffer<float> halves(n), bfloats(n);
  launch({"widen_kernel", dim3(n / 256), 256, nullptr}, widen_kernel, halves.get(), bfloats.get());
  finish();
  for (int i = 0; i < n; ++i) {
    const bool half_is_nan = (i & 0x7fff) > 0x7c00, bfloat_is_nan = (i & 0x7fff) > 0x7f80;
    if (half_is_nan ? !std::isnan(halves[i]) : reference_f16(halves[i]) != i) return "float16 " + std::to_string(i);
    if (bfloat_is_nan ? !std::isnan(bfloats[i]) : reference_bf16(bfloats[i]) != i)
      return "bfloat16 " + std::to_string(i);
  }
  return {};
}

// A compiler that fuses the rounding into the product adds +0 to it.
template <class T> __global__ void product_kernel(const float *a, const float *b, T *single, T *packed) {
  float values[8];
  for (int i = 0; i < 8; ++i) {
    single[8 * threadIdx.x + i] = from_float<T>(a[8 * threadIdx.x + i] * b[i]);
    values[i] = a[8 * threadIdx.x + i] * b[i];
  }
  store(packed + 8 * threadIdx.x, convert<T>(values));
}

template <class T> Failure check_negative_zero() {
  constexpr int n = 64 * 8;
  Buffer<float> a(n), b(8);
  Buffer<T> single(n), packed(n);
  for (int i = 0; i < n; ++i) a[i] = i % 2 ? 0.0f : -0.0f;
  for (int i = 0; i < 8; ++i) b[i] = i % 3 ? 1.5f : -2.0f;
  launch({"product_kernel", dim3(1), 64, nullptr}, product_kernel<T>, a.get(), b.get(), single.get(), packed.get());
  finish();
  for (int i = 0; i < n; ++i) {
    const uint16_t want = std::signbit(a[i] * b[i % 8]) ? 0x8000 : 0;
    if (single[i].bits != want || packed[i].bits != want) return "the sign of product " + std::to_string(i);
  }
  return {};
}

// Reads of n bytes at every offset, up to the last one of the allocation.
__global__ void unaligned_kernel(const uint8_t *bytes, int n, uint32_t *two, uint32_t *four, uint64_t *eight) {
  const int i = threadIdx.x;
  if (i + 2 <= n) two[i] = load_packed<uint16_t>(bytes + i);
  if (i + 4 <= n) four[i] = load_packed<uint32_t>(bytes + i);
  if (i + 8 <= n) eight[i] = load_packed<uint64_t>(bytes + i);
}

inline Failure check_unaligned() {
  constexpr int n = 61;
  Buffer<uint8_t> bytes(n);
  for (int i = 0; i < n; ++i) bytes[i] = static_cast<uint8_t>(37 * i + 11);
  Buffer<uint32_t> two(64), four(64);
  Buffer<uint64_t> eight(64);
  launch({"unaligned_kernel", dim3(1), 64, nullptr}, unaligned_kernel, bytes.get(), n, two.get(), four.get(),
         eight.get());
  finish();
  for (int i = 0; i < n; ++i) {
    uint64_t value = 0;
    for (int j = 0; j < 8 && i + j < n; ++j) value |= uint64_t{bytes[i + j]} << 8 * j;
    if (i + 2 <= n && two[i] != (value & 0xffff)) return "2 bytes at " + std::to_string(i);
    if (i + 4 <= n && four[i] != (value & 0xffffffff)) return "4 bytes at " + std::to_string(i);
    if (i + 8 <= n && eight[i] != value) return "8 bytes at " + std::to_string(i);
  }
  return {};
}

// What csrc/formats takes from the device language.
struct CheckTable {
  static constexpr uint64_t lo = 0x0706050403020180, hi = 0xf0e0d0c0b0a09f7f;
};
__global__ void formats_kernel(const uint8_t *in, float *bytes, float *entries, float *shorts) {
  const int t = threadIdx.x;
  formats::Float8 values;
  const formats::Int8x8 word = formats::load8(in + 8 * t);
  formats::to_floats(word, values);
  formats::store(values, bytes + 8 * t);
  formats::to_floats(formats::lookup16<CheckTable>(word & formats::each(0x0f)), values);
  formats::store(values, entries + 8 * t);
  formats::Int16x8 wide;
  for (int i = 0; i < formats::Int16x8::size; ++i) wide.words[i] = formats::load<formats::Word>(in + 8 * t + 4 * i);
  formats::to_floats(wide, values);
  formats::store(values, shorts + 8 * t);
}

inline Failure check_formats() {
  constexpr int n = 64 * 8;
  Buffer<uint8_t> in(n + 8);
  Buffer<float> bytes(n), entries(n), shorts(n);
  for (int i = 0; i < n + 8; ++i) in[i] = static_cast<uint8_t>(i < 256 ? i : 91 * i);
  launch({"formats_kernel", dim3(1), 64, nullptr}, formats_kernel, in.get(), bytes.get(), entries.get(), shorts.get());
  finish();
  for (int i = 0; i < n; ++i) {
    const int index = in[i] & 0x0f, at = i / 8 * 8 + i % 8 * 2;
    const uint64_t half = index < 8 ? CheckTable::lo : CheckTable::hi;
    if (bytes[i] != static_cast<int8_t>(in[i])) return "byte " + std::to_string(in[i]);
    if (entries[i] != static_cast<int8_t>(half >> index % 8 * 8)) return "entry " + std::to_string(index);
    if (shorts[i] != static_cast<int16_t>(in[at] | in[at + 1] << 8)) return "int16 " + std::to_string(i);
  }
  return {};
}

}  // namespace rocforge::gpu
