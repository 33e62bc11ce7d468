// Division by a number that is known before the launch, without a division (which costs a GPU some 30 instructions):
// T. Granlund, P. Montgomery, "Division by invariant integers using multiplication", PLDI 1994.
#pragma once

#include <cstdint>

namespace rocforge::gpu {

// n / divisor is (high word of n * magic, plus n) >> shift, exact for 0 <= n < 2^31.
struct Divider {
  uint32_t divisor, magic, shift;
};

#if defined(ROCFORGE_DEVICE)
ROCFORGE_DEVICE uint32_t divide(uint32_t n, const Divider &by) {
  return (static_cast<uint32_t>(uint64_t{n} * by.magic >> 32) + n) >> by.shift;
}
#endif

// 1 <= divisor < 2^31.
inline Divider make_divider(int64_t divisor) {
  uint32_t shift = 0;
  while ((int64_t{1} << shift) < divisor) ++shift;
  const uint64_t excess = (uint64_t{1} << shift) - divisor;
  return {static_cast<uint32_t>(divisor), static_cast<uint32_t>((excess << 32) / divisor + 1), shift};
}

}  // namespace rocforge::gpu
