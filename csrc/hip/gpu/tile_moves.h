// Moves between global memory, LDS and matrix operands, and the fast exponential, each in the vendor's best way.
//   copy_async(to, from, valid)  16 bytes from global memory (zeros where not valid) to LDS, aligned; there after
//                            copies_arrived and a barrier
//   copies_issued()          ends a group of copies of this thread
//   copies_arrived<N>()      waits until at most the N last groups of this thread are under way
//   opaque(x)                x; the compiler no longer knows how it came about. For addresses in a loop, each of which
//                            it would otherwise turn into a register that is kept and advanced
//   reread(argument)         the kernel's first argument, read from memory where it is used from here on. A compiler
//                            may otherwise read all of it once, and has no scalar registers to keep it in
//   in_order()               nothing moves across: a compiler may otherwise read the operands of many products before
//                            the first of them, and run out of registers
//   fast_exp2(x)             2^x to about 2 ulp; 0 below 2^-126
//   fast_reciprocal(x)       1 / x to about 1 ulp
//   load_matrices(p)         the operand registers of four 8 x 8 matrices, row lane % 8 of matrix lane / 8 at p
//   load_matrices_transposed
#pragma once

#include "hip/gpu.h"

namespace rocforge::gpu {

#if defined(__CUDACC__) && !defined(ROCFORGE_EMULATE)

inline constexpr bool kHasMatrixLoads = true;

ROCFORGE_DEVICE uint32_t lds_address(const void *p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

ROCFORGE_DEVICE void copy_async(void *to, const void *from, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(lds_address(to)), "l"(from), "r"(valid ? 16 : 0)
               : "memory");
}
ROCFORGE_DEVICE void copies_issued() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> ROCFORGE_DEVICE void copies_arrived() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

ROCFORGE_DEVICE int64_t opaque(int64_t x) {
  asm volatile("" : "+l"(x));
  return x;
}
ROCFORGE_DEVICE int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

ROCFORGE_DEVICE float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

template <class T> ROCFORGE_DEVICE const T &reread(const T &argument) { return argument; }
ROCFORGE_DEVICE void in_order() {}

ROCFORGE_DEVICE float fast_reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

ROCFORGE_DEVICE Vec<uint32_t, 4> load_matrices(const void *p) {
  Vec<uint32_t, 4> r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(lds_address(p))
               : "memory");
  return r;
}
ROCFORGE_DEVICE Vec<uint32_t, 4> load_matrices_transposed(const void *p) {
  Vec<uint32_t, 4> r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(lds_address(p))
               : "memory");
  return r;
}

#else

inline constexpr bool kHasMatrixLoads = false;

ROCFORGE_DEVICE void copy_async(void *to, const void *from, bool valid) {
  using Words = Vec<uint32_t, 4>;
  // Not a conditional expression: that chooses between two addresses, one of them on the stack.
  if (valid) {
    *static_cast<Words *>(to) = *static_cast<const Words *>(from);
  } else {
    *static_cast<Words *>(to) = {};
  }
}
ROCFORGE_DEVICE void copies_issued() {}
template <int N> ROCFORGE_DEVICE void copies_arrived() {}

template <class T> ROCFORGE_DEVICE T opaque(T x) {
  #if defined(__HIP_DEVICE_COMPILE__)
  asm volatile("" : "+v"(x));
  #endif
  return x;
}

template <class T> ROCFORGE_DEVICE const T &reread(const T &argument) {
  #if defined(__HIP_DEVICE_COMPILE__)
  using Constant = const __attribute__((address_space(4))) T *;
  auto first = (Constant)__builtin_amdgcn_kernarg_segment_ptr();
  asm volatile("" : "+s"(first));
  return *(const T *)first;
  #else
  return argument;
  #endif
}

ROCFORGE_DEVICE void in_order() {
  #if defined(__HIP_DEVICE_COMPILE__)
  __builtin_amdgcn_sched_barrier(0);
  #endif
}

ROCFORGE_DEVICE float fast_exp2(float x) {
  #if defined(__HIP_DEVICE_COMPILE__)
  return __builtin_amdgcn_exp2f(x);
  #else
  return exp2f(x);
  #endif
}

ROCFORGE_DEVICE float fast_reciprocal(float x) {
  #if defined(__HIP_DEVICE_COMPILE__)
  return __builtin_amdgcn_rcpf(x);
  #else
  return 1 / x;
  #endif
}

#endif

}  // namespace rocforge::gpu
