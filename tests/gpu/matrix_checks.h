// Every layout of csrc/hip/mma.h, operand by operand. A one at each place of A in turn picks a row of B: with all
// values of B and C different, a transposed or permuted operand shows, and it shows which one. Then a full product.
#pragma once

#include <vector>

#include "buffer.h"
#include "hip/mma.h"

namespace rocforge::gpu {

// One tile a workgroup: d[kM][kN] = a[kM][kK] b[kN][kK] transposed + c[kM][kN].
template <class M, Arch arch>
__global__ void matrix_kernel(const typename M::Element *a, const typename M::Element *b, const typename M::Sum *c,
                              typename M::Sum *d) {
  if constexpr (arch == kArch) {
    const int tile = blockIdx.x, lane = lane_id();
    const auto place = [&](int i) { return (tile * M::kM + M::c_row(lane, i)) * M::kN + M::c_col(lane, i); };
    typename M::C sum;
    for (int i = 0; i < M::kC; ++i) sum[i] = c[place(i)];
    sum = mma<M>(load_a<M>(a + tile * M::kM * M::kK, M::kK), load_b<M>(b + tile * M::kN * M::kK, M::kK), sum);
    for (int i = 0; i < M::kC; ++i) d[place(i)] = sum[i];
  }
}

// Small integers are exact in every element type: |value| <= 125.
template <class T> T element(int value) {
  if constexpr (std::is_same_v<T, int8_t>) {
    return static_cast<int8_t>(value);
  } else {
    uint32_t bits;
    const float wide = static_cast<float>(value);
    memcpy(&bits, &wide, sizeof bits);
    if constexpr (std::is_same_v<T, bf16>) return {static_cast<uint16_t>(bits >> 16)};
    // Of a normal number: five bits of exponent with another bias, ten of mantissa.
    const uint32_t half = value == 0 ? 0 : ((bits >> 13 & 0x3ffff) - (112 << 10)) | (bits >> 16 & 0x8000);
    return {static_cast<uint16_t>(half)};
  }
}

template <class M, Arch arch> Failure check_matrix(const char *name) {
  using T = typename M::Element;
  constexpr int m = M::kM, n = M::kN, k = M::kK;
  constexpr int tiles = m * k + 1;  // the last one is the full product
  std::vector<int> a_values(size_t{tiles} * m * k), b_values(size_t{tiles} * n * k);
  for (int tile = 0; tile < tiles; ++tile) {
    for (int i = 0; i < m * k; ++i) {
      a_values[tile * m * k + i] = tile == m * k ? i * i % 31 - 15 : i == tile ? 1 : 0;
    }
    for (int i = 0; i < n * k; ++i) b_values[tile * n * k + i] = i % 251 - 125;
  }
  Buffer<T> a(a_values.size()), b(b_values.size());
  for (size_t i = 0; i < a.size(); ++i) a[i] = element<T>(a_values[i]);
  for (size_t i = 0; i < b.size(); ++i) b[i] = element<T>(b_values[i]);
  Buffer<typename M::Sum> c(size_t{tiles} * m * n), d(size_t{tiles} * m * n);
  for (size_t i = 0; i < c.size(); ++i) c[i] = static_cast<typename M::Sum>(1000 * (1 + i % (m * n)));

  launch({"matrix_kernel", dim3(tiles), static_cast<unsigned>(wave_size(arch)), nullptr}, matrix_kernel<M, arch>,
         a.get(), b.get(), c.get(), d.get());
  finish();

  for (int tile = 0; tile < tiles; ++tile) {
    for (int row = 0; row < m; ++row) {
      for (int col = 0; col < n; ++col) {
        int want = 1000 * (1 + row * n + col);
        for (int i = 0; i < k; ++i) {
          want += a_values[(tile * m + row) * k + i] * b_values[(tile * n + col) * k + i];
        }
        const auto got = d[(size_t(tile) * m + row) * n + col];
        if (got == static_cast<typename M::Sum>(want)) continue;
        return std::string(name) + ", one at A[" + std::to_string(tile / k) + "][" + std::to_string(tile % k) +
               "]: C[" + std::to_string(row) + "][" + std::to_string(col) + "] is " + std::to_string(got) + ", not " +
               std::to_string(want);
      }
    }
  }
  return {};
}

// The layout that Mma picks for `arch`, with each element type.
template <Arch arch> Failure check_matrices() {
  Failure failure = check_matrix<Mma<f16, arch>, arch>("float16");
  if (failure.empty()) failure = check_matrix<Mma<bf16, arch>, arch>("bfloat16");
  if (failure.empty()) failure = check_matrix<Mma<int8_t, arch>, arch>("int8");
  if constexpr (arch == Arch::gfx90a || arch == Arch::gfx942 || arch == Arch::gfx950) {
    if (failure.empty()) failure = check_matrix<Mfma32x32<f16, arch>, arch>("float16, 32x32");
    if (failure.empty()) failure = check_matrix<Mfma32x32<bf16, arch>, arch>("bfloat16, 32x32");
    if (failure.empty()) failure = check_matrix<Mfma32x32<int8_t, arch>, arch>("int8, 32x32");
  }
  return failure;
}

}  // namespace rocforge::gpu
