// The matrix instructions of AMD GPUs. Included by mma.h only.
#pragma once

namespace rocforge::gpu {

template <class T, int n> struct NativeVector {
  typedef T type __attribute__((ext_vector_type(n)));
};
template <class T, int n> using Native = typename NativeVector<T, n>::type;

// What the instructions take for n values of T.
template <class T, int n> struct NativeOperand;
template <int n> struct NativeOperand<f16, n> : NativeVector<_Float16, n> {};
template <int n> struct NativeOperand<bf16, n> : NativeVector<short, n> {};
template <int n> struct NativeOperand<int8_t, n> : NativeVector<int, n / 4> {};
template <> struct NativeOperand<int8_t, 4> {
  using type = int;
};

// The host pass compiles none of this, but checks its types, for whatever layout is asked for.
#if defined(__HIP_DEVICE_COMPILE__)
  #define ROCFORGE_HOST_PASS 0
#else
  #define ROCFORGE_HOST_PASS 1
#endif

#if ROCFORGE_HOST_PASS || defined(__gfx90a__) || defined(__gfx942__) || defined(__gfx950__)
  #define MFMA(shape, type, a, b, c) __builtin_amdgcn_mfma_##shape##type(a, b, c, 0, 0, 0)
ROCFORGE_DEVICE auto mfma_16x16(Native<_Float16, 4> a, Native<_Float16, 4> b, Native<float, 4> c) {
  return MFMA(f32_16x16x16, f16, a, b, c);
}
ROCFORGE_DEVICE auto mfma_16x16(Native<short, 4> a, Native<short, 4> b, Native<float, 4> c) {
  return MFMA(f32_16x16x16, bf16_1k, a, b, c);
}
ROCFORGE_DEVICE auto mfma_32x32(Native<_Float16, 4> a, Native<_Float16, 4> b, Native<float, 16> c) {
  return MFMA(f32_32x32x8, f16, a, b, c);
}
ROCFORGE_DEVICE auto mfma_32x32(Native<short, 4> a, Native<short, 4> b, Native<float, 16> c) {
  return MFMA(f32_32x32x8, bf16_1k, a, b, c);
}
  #if ROCFORGE_HOST_PASS || defined(__gfx90a__)
ROCFORGE_DEVICE auto mfma_16x16(int a, int b, Native<int, 4> c) { return MFMA(i32_16x16x16, i8, a, b, c); }
ROCFORGE_DEVICE auto mfma_32x32(int a, int b, Native<int, 16> c) { return MFMA(i32_32x32x8, i8, a, b, c); }
  #endif
  #if ROCFORGE_HOST_PASS || !defined(__gfx90a__)
ROCFORGE_DEVICE auto mfma_16x16(Native<int, 2> a, Native<int, 2> b, Native<int, 4> c) {
  return MFMA(i32_16x16x32, _i8, bits_as<long>(a), bits_as<long>(b), c);
}
ROCFORGE_DEVICE auto mfma_32x32(Native<int, 2> a, Native<int, 2> b, Native<int, 16> c) {
  return MFMA(i32_32x32x16, _i8, bits_as<long>(a), bits_as<long>(b), c);
}
  #endif
  #undef MFMA

template <class T, Arch arch, int depth>
ROCFORGE_DEVICE auto multiply(Mfma16x16<T, arch, depth>, const Vec<T, depth / 4> &a, const Vec<T, depth / 4> &b,
                              const typename Mfma16x16<T, arch, depth>::C &c) {
  using M = Mfma16x16<T, arch, depth>;
  using Operand = typename NativeOperand<T, M::kA>::type;
  return bits_as<typename M::C>(
      mfma_16x16(bits_as<Operand>(a), bits_as<Operand>(b), bits_as<Native<typename M::Sum, M::kC>>(c)));
}
template <class T, Arch arch, int depth>
ROCFORGE_DEVICE auto multiply(Mfma32x32<T, arch, depth>, const Vec<T, depth / 2> &a, const Vec<T, depth / 2> &b,
                              const typename Mfma32x32<T, arch, depth>::C &c) {
  using M = Mfma32x32<T, arch, depth>;
  using Operand = typename NativeOperand<T, M::kA>::type;
  return bits_as<typename M::C>(
      mfma_32x32(bits_as<Operand>(a), bits_as<Operand>(b), bits_as<Native<typename M::Sum, M::kC>>(c)));
}
#endif

#if ROCFORGE_HOST_PASS || defined(__GFX11__)
ROCFORGE_DEVICE auto wmma(Native<_Float16, 16> a, Native<_Float16, 16> b, Native<float, 8> c) {
  return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(a, b, c);
}
ROCFORGE_DEVICE auto wmma(Native<short, 16> a, Native<short, 16> b, Native<float, 8> c) {
  return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(a, b, c);
}
ROCFORGE_DEVICE auto wmma(Native<int, 4> a, Native<int, 4> b, Native<int, 8> c) {
  return __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32(/*a_signed=*/true, a, /*b_signed=*/true, b, c, /*clamp=*/false);
}
template <class T>
ROCFORGE_DEVICE auto multiply(WmmaGfx11<T>, const Vec<T, 16> &a, const Vec<T, 16> &b,
                              const typename WmmaGfx11<T>::C &c) {
  using M = WmmaGfx11<T>;
  using Operand = typename NativeOperand<T, M::kA>::type;
  return bits_as<typename M::C>(
      wmma(bits_as<Operand>(a), bits_as<Operand>(b), bits_as<Native<typename M::Sum, M::kC>>(c)));
}
#endif

#if ROCFORGE_HOST_PASS || defined(__GFX12__)
ROCFORGE_DEVICE auto wmma(Native<_Float16, 8> a, Native<_Float16, 8> b, Native<float, 8> c) {
  return __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(a, b, c);
}
ROCFORGE_DEVICE auto wmma(Native<short, 8> a, Native<short, 8> b, Native<float, 8> c) {
  return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(a, b, c);
}
ROCFORGE_DEVICE auto wmma(Native<int, 2> a, Native<int, 2> b, Native<int, 8> c) {
  return __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32_gfx12(/*a_signed=*/true, a, /*b_signed=*/true, b, c,
                                                          /*clamp=*/false);
}
template <class T>
ROCFORGE_DEVICE auto multiply(WmmaGfx12<T>, const Vec<T, 8> &a, const Vec<T, 8> &b, const typename WmmaGfx12<T>::C &c) {
  using M = WmmaGfx12<T>;
  using Operand = typename NativeOperand<T, M::kA>::type;
  return bits_as<typename M::C>(
      wmma(bits_as<Operand>(a), bits_as<Operand>(b), bits_as<Native<typename M::Sum, M::kC>>(c)));
}
#endif

#undef ROCFORGE_HOST_PASS

}  // namespace rocforge::gpu
