// How the lanes of a wave share a product of 16 packed rows with columns: rows of the input.
//
// Weights come in quads, four neighbours in a row. A product takes 16 weights of each row, as four quads ("slots"), and
// the same 16 values of each column; what it adds to sums is float32.
//
//     kRows                  packed rows that a lane holds weights of; row(lane, r)
//     kSlots                 quads of each of them in a product; slot(lane, j)
//     kColumns               of a product; the lane holds values of kLaneColumns of them: column(lane, c)
//     Weights, Columns       operands, filled by set(weights, r, j, levels) and set(columns, c, j, values)
//     Sums                   value i: row sum_row(i) of the lane, column sum_column(lane, i)
//     multiply(w, x, sums)   sums + the product
//     total(x, sums)         sums + the sum of each column's values
//     finish(sums)           where lanes share sums: all of it in each of them
#pragma once

#include "hip/gpu/packed.h"
#include "hip/mma.h"

namespace rocforge::gpu {

// Four values of T as two words.
template <class T> using Quad = Vec<uint32_t, 2>;

// Packed rows are columns of B: what a lane sums belongs to one packed row, as its weights do.
template <class T, Arch arch> struct MatrixLayout {
  using M = Mma<T, arch>;
  using Element = T;
  static constexpr int kRows = 1, kSlots = M::kB / 4, kColumns = M::kM, kLaneColumns = 1;
  using Weights = Vec<uint32_t, M::kB / 2>;
  using Columns = Vec<uint32_t, M::kA / 2>;
  using Sums = typename M::C;
  static constexpr int kSums = M::kC;
  static_assert(M::kN == 16 && M::kK == 16 && M::kRun % 4 == 0, "quads are neighbours in k");

  static ROCFORGE_DEVICE int row(int lane, int) { return M::b_col(lane, 0); }
  static ROCFORGE_DEVICE int slot(int lane, int j) { return M::b_k(lane, 4 * j) / 4; }
  static ROCFORGE_DEVICE int column(int lane, int) { return M::a_row(lane, 0); }
  static ROCFORGE_DEVICE int sum_row(int) { return 0; }
  static ROCFORGE_DEVICE int sum_column(int lane, int i) { return M::c_row(lane, i); }

  static ROCFORGE_DEVICE void set(Weights &w, int, int j, Quad<T> quad) { w[2 * j] = quad[0], w[2 * j + 1] = quad[1]; }
  static ROCFORGE_DEVICE void set_column(Columns &x, int, int j, Quad<T> quad) {
    x[2 * j] = quad[0], x[2 * j + 1] = quad[1];
  }
  static ROCFORGE_DEVICE Sums multiply(const Weights &w, const Columns &x, const Sums &sums ROCFORGE_SITE) {
    return mma<M>(bits_as<typename M::A>(x), bits_as<typename M::B>(w), sums ROCFORGE_PASS_SITE);
  }
  static ROCFORGE_DEVICE Sums total(const Columns &x, const Sums &sums ROCFORGE_SITE) {
    Weights ones;
#pragma unroll
    for (int i = 0; i < M::kB / 2; ++i) ones[i] = kOnes<T>;
    return multiply(ones, x, sums ROCFORGE_PASS_SITE);
  }
  static ROCFORGE_DEVICE float finish(float sum ROCFORGE_SITE) { return sum; }

 private:
  template <class U> static constexpr uint32_t kOnes = std::is_same_v<U, f16> ? 0x3c003c00 : 0x3f803f80;
};

// Packed rows are rows of A: a lane holds two, and sums of the same two. The quad in slot t is at k = 2 t, 2 t + 1,
// 2 t + 8 and 2 t + 9, in both operands.
template <class T> struct MatrixLayout<T, Arch::sm80> {
  using M = MmaSync<T>;
  using Element = T;
  static constexpr int kRows = 2, kSlots = 1, kColumns = M::kN, kLaneColumns = 1;
  using Weights = Vec<uint32_t, 4>;
  using Columns = Vec<uint32_t, 2>;
  using Sums = typename M::C;
  static constexpr int kSums = M::kC;

  static ROCFORGE_DEVICE int row(int lane, int r) { return lane / 4 + 8 * r; }
  static ROCFORGE_DEVICE int slot(int lane, int) { return lane % 4; }
  static ROCFORGE_DEVICE int column(int lane, int) { return lane / 4; }
  static ROCFORGE_DEVICE int sum_row(int i) { return i / 2; }
  static ROCFORGE_DEVICE int sum_column(int lane, int i) { return M::c_col(lane, i); }

  static ROCFORGE_DEVICE void set(Weights &w, int r, int, Quad<T> quad) { w[r] = quad[0], w[r + 2] = quad[1]; }
  static ROCFORGE_DEVICE void set_column(Columns &x, int, int, Quad<T> quad) { x = quad; }
  static ROCFORGE_DEVICE Sums multiply(const Weights &w, const Columns &x, const Sums &sums ROCFORGE_SITE) {
    return mma<M>(bits_as<typename M::A>(w), bits_as<typename M::B>(x), sums ROCFORGE_PASS_SITE);
  }
  static ROCFORGE_DEVICE Sums total(const Columns &x, const Sums &sums ROCFORGE_SITE) {
    constexpr uint32_t kOnes = std::is_same_v<T, f16> ? 0x3c003c00 : 0x3f803f80;
    return multiply({{kOnes, kOnes, kOnes, kOnes}}, x, sums ROCFORGE_PASS_SITE);
  }
  static ROCFORGE_DEVICE float finish(float sum ROCFORGE_SITE) { return sum; }
};

template <class T> struct MatrixLayout<T, Arch::sm90> : MatrixLayout<T, Arch::sm80> {};

// Without matrix cores: a lane holds one packed row and a few columns, all in float32, and sums its own slots only.
template <Arch arch> struct PlainLayout {
  using Element = float;
  static constexpr int kRows = 1, kSlots = 64 / wave_size(arch), kColumns = 4, kLaneColumns = kColumns;
  using Weights = Vec<float, 4 * kSlots>;
  struct Columns {
    Weights v[kColumns];
  };
  using Sums = Vec<float, kColumns>;
  static constexpr int kSums = kColumns;

  static ROCFORGE_DEVICE int row(int lane, int) { return lane % 16; }
  static ROCFORGE_DEVICE int slot(int lane, int j) { return lane / 16 * kSlots + j; }
  static ROCFORGE_DEVICE int column(int, int c) { return c; }
  static ROCFORGE_DEVICE int sum_row(int) { return 0; }
  static ROCFORGE_DEVICE int sum_column(int, int i) { return i; }

  static ROCFORGE_DEVICE void set(Weights &w, int, int j, const Vec<float, 4> &quad) {
#pragma unroll
    for (int i = 0; i < 4; ++i) w[4 * j + i] = quad[i];
  }
  static ROCFORGE_DEVICE void set_column(Columns &x, int c, int j, const Vec<float, 4> &quad) {
    set(x.v[c], 0, j, quad);
  }
  static ROCFORGE_DEVICE Sums multiply(const Weights &w, const Columns &x, Sums sums ROCFORGE_SITE) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
#pragma unroll
      for (int i = 0; i < 4 * kSlots; ++i) sums[c] = fmaf(w[i], x.v[c][i], sums[c]);
    }
    return sums;
  }
  static ROCFORGE_DEVICE Sums total(const Columns &x, Sums sums ROCFORGE_SITE) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
#pragma unroll
      for (int i = 0; i < 4 * kSlots; ++i) sums[c] += x.v[c][i];
    }
    return sums;
  }
  static ROCFORGE_DEVICE float finish(float sum ROCFORGE_SITE) {
#pragma unroll
    for (int mask = 16; mask < kWave; mask *= 2) sum += shuffle_xor(sum, mask ROCFORGE_PASS_SITE);
    return sum;
  }
};

// float32 inputs go through the matrix cores as three bfloat16 each.
template <class Input, Arch arch>
using LinearLayout = std::conditional_t<arch == Arch::gfx9 || arch == Arch::gfx10, PlainLayout<arch>,
                                        MatrixLayout<std::conditional_t<std::is_same_v<Input, f16>, f16, bf16>, arch>>;

// Four float32 as sums of three bfloat16 each, exactly (an infinity is its first part).
ROCFORGE_DEVICE void split(Vec<float, 4> values, Vec<uint32_t, 2> (&parts)[3]) {
#pragma unroll
  for (int p = 0; p < 3; ++p) {
    parts[p] = {{upper_halves(values[0], values[1]), upper_halves(values[2], values[3])}};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float upper = bits_as<float>(bits_as<uint32_t>(values[i]) & 0xffff0000);
      values[i] = fabsf(values[i]) < __builtin_inff() ? values[i] - upper : 0;
    }
  }
}

}  // namespace rocforge::gpu
