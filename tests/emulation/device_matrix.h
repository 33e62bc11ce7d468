// Which instruction of the emulation each layout of csrc/hip/mma.h is. Included by that file only.
#pragma once

namespace rocforge::gpu {

template <class M> inline constexpr emu::MatrixUnit kMatrixUnit{};
template <class T, Arch arch, int depth>
inline constexpr auto kMatrixUnit<Mfma16x16<T, arch, depth>> = emu::MatrixUnit::mfma_16x16;
template <class T, Arch arch, int depth>
inline constexpr auto kMatrixUnit<Mfma32x32<T, arch, depth>> = emu::MatrixUnit::mfma_32x32;
template <class T> inline constexpr auto kMatrixUnit<WmmaGfx11<T>> = emu::MatrixUnit::wmma_gfx11;
template <class T> inline constexpr auto kMatrixUnit<WmmaGfx12<T>> = emu::MatrixUnit::wmma_gfx12;
template <class T, int run> inline constexpr auto kMatrixUnit<MmaSync<T, run>> = emu::MatrixUnit::mma_sync;

template <class T>
inline constexpr emu::Element kElement = std::is_same_v<T, f16>    ? emu::Element::f16
                                         : std::is_same_v<T, bf16> ? emu::Element::bf16
                                                                   : emu::Element::i8;

template <class M>
typename M::C multiply(M, const typename M::A &a, const typename M::B &b, const typename M::C &c ROCFORGE_SITE) {
  typename M::C d;
  emu::multiply(kMatrixUnit<M>, kElement<typename M::Element>, M::kK, {&a, &b, &c}, &d, {site_file, site_line});
  return d;
}

}  // namespace rocforge::gpu
