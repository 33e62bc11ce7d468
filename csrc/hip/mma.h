// Matrix cores: one interface, one layout for each family of instructions.
//
// An instruction computes C[kM, kN] += A[kM, kK] B[kK, kN] for one wave. Every lane holds kA values of A, kB of B and
// kC of C; a layout says which: value i of lane `lane` is A[a_row(lane, i)][a_k(lane, i)], and so on. A and B are
// float16 or bfloat16 and C float32, or A and B int8 and C int32.
//
//     using M = Mma<bf16>;                                    // the layout of the architecture compiled for
//     typename M::C c = {};
//     c = mma<M>(load_a<M>(rows, stride), load_b<M>(columns, stride), c);
//     for (int i = 0; i < M::kC; ++i) out[M::c_row(lane_id(), i) * n + M::c_col(lane_id(), i)] = c[i];
//
// All lanes of the wave take part.
#pragma once

#include <type_traits>

#include "hip/gpu.h"

namespace rocforge::gpu {

// kRun: that many values of A (and of B), from a multiple of it on, are neighbours in k.
template <class T, int m, int n, int k, int a, int b, int c, int run> struct MatrixShape {
  using Element = T;
  using Sum = std::conditional_t<std::is_same_v<T, int8_t>, int32_t, float>;
  using A = Vec<T, a>;
  using B = Vec<T, b>;
  using C = Vec<Sum, c>;
  static constexpr int kM = m, kN = n, kK = k, kA = a, kB = b, kC = c, kRun = run;
};

// Since gfx942 MFMA takes as many bytes of 8-bit values as of 16-bit values: twice as many of them.
template <class T, Arch arch>
inline constexpr int kMfmaDepthFactor = std::is_same_v<T, int8_t> && arch != Arch::gfx90a ? 2 : 1;

// CDNA, wave of 64.
template <class T, Arch arch = kArch, int depth = 16 * kMfmaDepthFactor<T, arch>>
struct Mfma16x16 : MatrixShape<T, 16, 16, depth, depth / 4, depth / 4, 4, depth / 4> {
  static ROCFORGE_DEVICE int a_row(int lane, int) { return lane % 16; }
  static ROCFORGE_DEVICE int a_k(int lane, int i) { return lane / 16 * (depth / 4) + i; }
  static ROCFORGE_DEVICE int b_col(int lane, int i) { return a_row(lane, i); }
  static ROCFORGE_DEVICE int b_k(int lane, int i) { return a_k(lane, i); }
  static ROCFORGE_DEVICE int c_row(int lane, int i) { return lane / 16 * 4 + i; }
  static ROCFORGE_DEVICE int c_col(int lane, int) { return lane % 16; }
};

template <class T, Arch arch = kArch, int depth = 8 * kMfmaDepthFactor<T, arch>>
struct Mfma32x32 : MatrixShape<T, 32, 32, depth, depth / 2, depth / 2, 16, depth / 2> {
  static ROCFORGE_DEVICE int a_row(int lane, int) { return lane % 32; }
  static ROCFORGE_DEVICE int a_k(int lane, int i) { return lane / 32 * (depth / 2) + i; }
  static ROCFORGE_DEVICE int b_col(int lane, int i) { return a_row(lane, i); }
  static ROCFORGE_DEVICE int b_k(int lane, int i) { return a_k(lane, i); }
  static ROCFORGE_DEVICE int c_row(int lane, int i) { return i / 4 * 8 + lane / 32 * 4 + i % 4; }
  static ROCFORGE_DEVICE int c_col(int lane, int) { return lane % 32; }
};

// RDNA 3, wave of 32. Lanes l and l + 16 must hold the same A and the same B.
template <class T> struct WmmaGfx11 : MatrixShape<T, 16, 16, 16, 16, 16, 8, 16> {
  static ROCFORGE_DEVICE int a_row(int lane, int) { return lane % 16; }
  static ROCFORGE_DEVICE int a_k(int, int i) { return i; }
  static ROCFORGE_DEVICE int b_col(int lane, int) { return lane % 16; }
  static ROCFORGE_DEVICE int b_k(int, int i) { return i; }
  static ROCFORGE_DEVICE int c_row(int lane, int i) { return 2 * i + lane / 16; }
  static ROCFORGE_DEVICE int c_col(int lane, int) { return lane % 16; }
};

// RDNA 4, wave of 32.
template <class T> struct WmmaGfx12 : MatrixShape<T, 16, 16, 16, 8, 8, 8, 8> {
  static ROCFORGE_DEVICE int a_row(int lane, int) { return lane % 16; }
  static ROCFORGE_DEVICE int a_k(int lane, int i) { return lane / 16 * 8 + i; }
  static ROCFORGE_DEVICE int b_col(int lane, int i) { return a_row(lane, i); }
  static ROCFORGE_DEVICE int b_k(int lane, int i) { return a_k(lane, i); }
  static ROCFORGE_DEVICE int c_row(int lane, int i) { return lane / 16 * 8 + i; }
  static ROCFORGE_DEVICE int c_col(int lane, int) { return lane % 16; }
};

// NVIDIA, wave of 32. A register holds `run` values of one row: four lanes share a row.
template <class T, int run = 4 / sizeof(T)> struct MmaSync : MatrixShape<T, 16, 8, 8 * run, 4 * run, 2 * run, 4, run> {
  static ROCFORGE_DEVICE int a_row(int lane, int i) { return lane / 4 + i / run % 2 * 8; }
  static ROCFORGE_DEVICE int a_k(int lane, int i) { return lane % 4 * run + i % run + i / (2 * run) * (4 * run); }
  static ROCFORGE_DEVICE int b_col(int lane, int) { return lane / 4; }
  static ROCFORGE_DEVICE int b_k(int lane, int i) { return lane % 4 * run + i % run + i / run * (4 * run); }
  static ROCFORGE_DEVICE int c_row(int lane, int i) { return lane / 4 + i / 2 * 8; }
  static ROCFORGE_DEVICE int c_col(int lane, int i) { return lane % 4 * 2 + i % 2; }
};

// Without matrix cores. A lane owns a column and fetches the rows of A from the lanes that hold them: lanes that are
// equal modulo 16 hold the same one.
template <class T, Arch arch = kArch> struct PlainMatrix : MatrixShape<T, 16, wave_size(arch), 16, 16, 16, 16, 16> {
  static ROCFORGE_DEVICE int a_row(int lane, int) { return lane % 16; }
  static ROCFORGE_DEVICE int a_k(int, int i) { return i; }
  static ROCFORGE_DEVICE int b_col(int lane, int) { return lane; }
  static ROCFORGE_DEVICE int b_k(int, int i) { return i; }
  static ROCFORGE_DEVICE int c_row(int, int i) { return i; }
  static ROCFORGE_DEVICE int c_col(int lane, int) { return lane; }
};

template <class T, Arch arch> constexpr auto layout_of() {
  if constexpr (arch == Arch::gfx90a || arch == Arch::gfx942 || arch == Arch::gfx950) {
    return Mfma16x16<T, arch>{};
  } else if constexpr (arch == Arch::gfx11) {
    return WmmaGfx11<T>{};
  } else if constexpr (arch == Arch::gfx12) {
    return WmmaGfx12<T>{};
  } else if constexpr (is_nvidia(arch)) {
    return MmaSync<T>{};
  } else {
    return PlainMatrix<T, arch>{};
  }
}
template <class T, Arch arch = kArch> using Mma = decltype(layout_of<T, arch>());

ROCFORGE_DEVICE float multiply_add(f16 a, f16 b, float c) { return fmaf(to_float(a), to_float(b), c); }
ROCFORGE_DEVICE float multiply_add(bf16 a, bf16 b, float c) { return fmaf(to_float(a), to_float(b), c); }
ROCFORGE_DEVICE int32_t multiply_add(int8_t a, int8_t b, int32_t c) { return a * b + c; }

template <class T, Arch arch>
ROCFORGE_DEVICE auto multiply(PlainMatrix<T, arch>, const Vec<T, 16> &a, const Vec<T, 16> &b,
                              typename PlainMatrix<T, arch>::C c ROCFORGE_SITE) {
#pragma unroll
  for (int row = 0; row < 16; ++row) {
    const Vec<T, 16> values = broadcast(a, row ROCFORGE_PASS_SITE);
#pragma unroll
    for (int k = 0; k < 16; ++k) c[row] = multiply_add(values[k], b[k], c[row]);
  }
  return c;
}

}  // namespace rocforge::gpu

// multiply(layout, a, b, c) for the layouts with an instruction.
#if defined(ROCFORGE_EMULATE)
  #include "device_matrix.h"  // tests/emulation
#elif defined(__HIP__)
  #include "hip/gpu/matrix_amd.h"
#else
  #include "hip/gpu/matrix_nvidia.h"
#endif

namespace rocforge::gpu {

// A B + C.
template <class M>
ROCFORGE_DEVICE typename M::C mma(const typename M::A &a, const typename M::B &b,
                                  const typename M::C &c ROCFORGE_SITE) {
  return multiply(M{}, a, b, c ROCFORGE_PASS_SITE);
}

// This lane's values of A from memory [kM][stride], k innermost. Rows are aligned to kRun values.
template <class M> ROCFORGE_DEVICE typename M::A load_a(const typename M::Element *rows, int stride ROCFORGE_SITE) {
  typename M::A a;
#pragma unroll
  for (int i = 0; i < M::kA; i += M::kRun) {
    const auto run = load<M::kRun>(rows + M::a_row(lane_id(), i) * stride + M::a_k(lane_id(), i) ROCFORGE_PASS_SITE);
#pragma unroll
    for (int j = 0; j < M::kRun; ++j) a[i + j] = run[j];
  }
  return a;
}

// This lane's values of B from memory [kN][stride], k innermost: B's columns.
template <class M> ROCFORGE_DEVICE typename M::B load_b(const typename M::Element *columns, int stride ROCFORGE_SITE) {
  typename M::B b;
#pragma unroll
  for (int i = 0; i < M::kB; i += M::kRun) {
    const auto run = load<M::kRun>(columns + M::b_col(lane_id(), i) * stride + M::b_k(lane_id(), i) ROCFORGE_PASS_SITE);
#pragma unroll
    for (int j = 0; j < M::kRun; ++j) b[i + j] = run[j];
  }
  return b;
}

}  // namespace rocforge::gpu
