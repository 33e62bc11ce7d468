// Huge pages for large outputs.
#pragma once

#include <sys/mman.h>

#include <cstdint>

namespace rocforge::cpu {

// Asks for huge pages under the 2 MiB pieces of fresh memory: its first writes then cost one page fault a piece, where
// 512 faults take several times as long as decoding does. Only a hint, and to Linux only.
inline void prefer_huge_pages([[maybe_unused]] void *first, [[maybe_unused]] int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHugePage = 2 << 20;
  const auto address = reinterpret_cast<uintptr_t>(first);
  const uintptr_t begin = (address + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (address + bytes) / kHugePage * kHugePage;
  if (begin < end) madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace rocforge::cpu
