// Products of four neighbouring waves whose operands lie in LDS, where the GPU has them (sm90): kHasGroupProducts.
//
// Each wave gets 16 rows of the 64 x N result, in registers as MmaSync's C. The second operand, and where it is not in
// registers the first, is AtomRows in LDS (hip/attention_layout.h), 1024-byte aligned.
//   LdsOperand               where an operand begins, for the matrix cores
//   along_dims<kDim>(tile, row, d)      of tile rows from `row` on, multiplied over d, d + 1, ..
//   along_rows<kDim>(tile, row, d)      the same multiplied over its rows
//   group_multiply<T, kFrom, kN>(c, a, b, add)   c[kFrom ..] (+)= a b, 16 deep; kN columns
//   group_products_begin()   registers that were written before may be operands from here on
//   group_products_issued()  ends a batch
//   group_products_done<N>() waits until at most the N last batches are under way: till then nobody touches their sums
//   lds_written()            before a barrier: what this thread wrote to LDS may be an operand behind it
#pragma once

#include "hip/gpu/tile_moves.h"

namespace rocforge::gpu {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) && !defined(ROCFORGE_EMULATE)

inline constexpr bool kHasGroupProducts = true;

struct LdsOperand {
  uint64_t bits;
};

// Atoms are 8 rows of 128 bytes, swizzled; those of the same rows are neighbours. Distances are in units of 16 bytes.
template <int kDim> ROCFORGE_DEVICE LdsOperand lds_operand(const void *p) {
  constexpr uint64_t kSwizzle = uint64_t{1} << 62, kNextDims = 1024 / 16, kNextRows = kDim;
  return {kSwizzle | kNextRows << 32 | kNextDims << 16 | lds_address(p) >> 4};
}
template <int kDim, class T> ROCFORGE_DEVICE LdsOperand along_dims(const T *tile, int row, int d) {
  return lds_operand<kDim>(tile + row * kDim + d / 64 * 512 + d % 64);
}
template <int kDim, class T> ROCFORGE_DEVICE LdsOperand along_rows(const T *tile, int row, int d) {
  return lds_operand<kDim>(tile + row * kDim + d / 64 * 512);
}

ROCFORGE_DEVICE void group_products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
ROCFORGE_DEVICE void group_products_issued() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> ROCFORGE_DEVICE void group_products_done() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
ROCFORGE_DEVICE void lds_written() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// clang-format off
#define SUMS_8(n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define SUMS_32(n) SUMS_8(n), SUMS_8(n + 1), SUMS_8(n + 2), SUMS_8(n + 3)
#define SUMS_64(n) SUMS_32(n), SUMS_32(n + 4)
#define SUMS_128(n) SUMS_64(n), SUMS_64(n + 8)
#define NAMES_32 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define NAMES_64 NAMES_32 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES_128                                                             \
  NAMES_64 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47" \
           ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
// Both operands in LDS along dims. o0: the number of sums; o1, o2: the next ones.
#define IN_LDS(n, type, o0, o1, o2)                                                                           \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #o2 ", 0; "                                                 \
               "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" NAMES_##n "}, %" #o0 ", " \
               "%" #o1 ", p, 1, 1, 0, 0; }"                                                                   \
               : SUMS_##n(kFrom) : "l"(a.bits), "l"(b.bits), "r"(static_cast<int>(add)))
// The first in registers, the second in LDS along rows.
#define IN_REGISTERS(n, type, o0, o1, o2, o3, o4)                                                            \
  asm volatile("{ .reg .pred p; setp.eq.b32 p, 0, 0; "                                                       \
               "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" NAMES_##n "}, "          \
               "{%" #o0 ", %" #o1 ", %" #o2 ", %" #o3 "}, %" #o4 ", p, 1, 1, 1; }"                           \
               : SUMS_##n(kFrom) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.bits))
// clang-format on

template <class T, int kFrom, int kN, int kBlocks>
ROCFORGE_DEVICE void group_multiply(Vec<float, 4> (&c)[kBlocks], LdsOperand a, LdsOperand b, bool add) {
  constexpr bool kHalf = std::is_same_v<T, f16>;
  static_assert(kN == 32 || kN == 64 || kN == 128, "columns of an instruction");
  if constexpr (kN == 32 && kHalf) IN_LDS(32, "f16", 16, 17, 18);
  if constexpr (kN == 32 && !kHalf) IN_LDS(32, "bf16", 16, 17, 18);
  if constexpr (kN == 64 && kHalf) IN_LDS(64, "f16", 32, 33, 34);
  if constexpr (kN == 64 && !kHalf) IN_LDS(64, "bf16", 32, 33, 34);
  if constexpr (kN == 128 && kHalf) IN_LDS(128, "f16", 64, 65, 66);
  if constexpr (kN == 128 && !kHalf) IN_LDS(128, "bf16", 64, 65, 66);
}
template <class T, int kFrom, int kN, int kBlocks>
ROCFORGE_DEVICE void group_multiply(Vec<float, 4> (&c)[kBlocks], const Vec<uint32_t, 4> &a, LdsOperand b) {
  constexpr bool kHalf = std::is_same_v<T, f16>;
  static_assert(kN == 64 || kN == 128, "columns of an instruction");
  if constexpr (kN == 64 && kHalf) IN_REGISTERS(64, "f16", 32, 33, 34, 35, 36);
  if constexpr (kN == 64 && !kHalf) IN_REGISTERS(64, "bf16", 32, 33, 34, 35, 36);
  if constexpr (kN == 128 && kHalf) IN_REGISTERS(128, "f16", 64, 65, 66, 67, 68);
  if constexpr (kN == 128 && !kHalf) IN_REGISTERS(128, "bf16", 64, 65, 66, 67, 68);
}

  #undef SUMS_8
  #undef SUMS_32
  #undef SUMS_64
  #undef SUMS_128
  #undef NAMES_32
  #undef NAMES_64
  #undef NAMES_128
  #undef IN_LDS
  #undef IN_REGISTERS

#else

inline constexpr bool kHasGroupProducts = false;

ROCFORGE_DEVICE void group_products_begin() {}
ROCFORGE_DEVICE void group_products_issued() {}
template <int N> ROCFORGE_DEVICE void group_products_done() {}
ROCFORGE_DEVICE void lds_written() {}

// Not defined: for code that is never compiled here.
struct LdsOperand;
template <int kDim, class T> LdsOperand along_dims(const T *tile, int row, int d);
template <int kDim, class T> LdsOperand along_rows(const T *tile, int row, int d);
template <class T, int kFrom, int kN, class Sums, class... Operands> void group_multiply(Sums &c, Operands... operands);

#endif

}  // namespace rocforge::gpu
