// The matrix instructions of NVIDIA GPUs. Included by mma.h only.
#pragma once

namespace rocforge::gpu {

// c: the four registers "+f" or "+r" of the sum.
#define MMA_SYNC(shape_and_types, constraint)                                                      \
  asm("mma.sync.aligned." shape_and_types " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
      : constraint(c[0]), constraint(c[1]), constraint(c[2]), constraint(c[3])                     \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

template <class T, int run>
ROCFORGE_DEVICE auto multiply(MmaSync<T, run>, const Vec<T, 4 * run> &a_values, const Vec<T, 2 * run> &b_values,
                              typename MmaSync<T, run>::C c) {
  const auto a = bits_as<Vec<uint32_t, 4>>(a_values);
  const auto b = bits_as<Vec<uint32_t, 2>>(b_values);
  if constexpr (std::is_same_v<T, f16>) {
    MMA_SYNC("m16n8k16.row.col.f32.f16.f16.f32", "+f");
  } else if constexpr (std::is_same_v<T, bf16>) {
    MMA_SYNC("m16n8k16.row.col.f32.bf16.bf16.f32", "+f");
  } else {
    MMA_SYNC("m16n8k32.row.col.s32.s8.s8.s32", "+r");
  }
  return c;
}

#undef MMA_SYNC

}  // namespace rocforge::gpu
