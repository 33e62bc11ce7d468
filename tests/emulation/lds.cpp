#include "lds.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#include "emu.h"
#include "workgroup.h"

#if defined(ROCFORGE_EMULATE_ASAN)
  #include <sanitizer/asan_interface.h>
#endif

namespace emu {
namespace {

// A guard smaller than an overshoot would not see it.
constexpr size_t kGuardBytes = 1024, kArenaBytes = 1 << 20;
constexpr unsigned char kNaN = 0xff;  // every byte of one

void poison([[maybe_unused]] char *begin, [[maybe_unused]] size_t bytes) {
#if defined(ROCFORGE_EMULATE_ASAN)
  __asan_poison_memory_region(begin, bytes);
#endif
}
void unpoison([[maybe_unused]] char *begin, [[maybe_unused]] size_t bytes) {
#if defined(ROCFORGE_EMULATE_ASAN)
  __asan_unpoison_memory_region(begin, bytes);
#endif
}

struct Array {
  const char *name;
  char *begin;
  size_t bytes;
};

struct Arena {
  char *memory;
  size_t used = kArenaBytes;
  size_t limit = 0, allocated = 0;
  uint64_t workgroup = 0;
  std::vector<Array> arrays;  // the first one is the dynamic LDS

  Arena() {
    void *p = mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    memory = static_cast<char *>(p);
  }
  // The workgroup's arrays with their guards.
  size_t dirty_bytes() const { return std::min(used + kGuardBytes, kArenaBytes); }
};
Arena &arena() {
  static Arena arena;
  return arena;
}

char *allocate(const char *name, size_t bytes) {
  Arena &lds = arena();
  lds.allocated += bytes;
  char *const begin = lds.memory + lds.used + kGuardBytes;
  lds.used += kGuardBytes + (bytes + 15) / 16 * 16;
  lds.arrays.push_back({name, begin, bytes});
  unpoison(begin, bytes);
  return begin;
}

}  // namespace

void begin_lds(size_t dynamic_bytes, size_t limit) {
  Arena &lds = arena();
  unpoison(lds.memory, lds.dirty_bytes());
  memset(lds.memory, kNaN, lds.dirty_bytes());
  poison(lds.memory, lds.dirty_bytes());
  lds.used = lds.allocated = 0;
  lds.limit = limit;
  lds.arrays.clear();
  ++lds.workgroup;
  allocate("dynamic LDS", dynamic_bytes);
}

void *lds_array(LdsArray &array) {
  const InRuntime scope;
  Arena &lds = arena();
  if (array.workgroup != lds.workgroup) {
    if (lds.allocated + array.bytes > lds.limit) {
      stop("LDS: " + std::to_string(lds.allocated + array.bytes) + " bytes with " + array.name +
           ", and this launch may use " + std::to_string(lds.limit));
    }
    if (lds.used + array.bytes + 2 * kGuardBytes > kArenaBytes) stop("more LDS arrays than the emulation has room for");
    array.address = allocate(array.name, array.bytes);
    array.workgroup = lds.workgroup;
  }
  return array.address;
}

void *dynamic_lds() { return arena().arrays.front().begin; }

const char *overwritten_lds_guard() {
  Arena &lds = arena();
  unpoison(lds.memory, lds.dirty_bytes());
  // At least two bytes, all equal to their neighbour.
  const auto intact = [](const char *begin, const char *end) {
    return static_cast<unsigned char>(*begin) == kNaN && memcmp(begin, begin + 1, end - begin - 1) == 0;
  };
  for (const Array &array : lds.arrays) {
    const char *const end = array.begin + array.bytes;
    const char *const padded_end = array.begin + (array.bytes + 15) / 16 * 16;
    if (!intact(array.begin - kGuardBytes, array.begin) || !intact(end, padded_end + kGuardBytes)) return array.name;
  }
  return nullptr;
}

bool is_lds(const void *address) {
  return reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(arena().memory) < kArenaBytes;
}

bool is_inside_lds_array(const void *address, size_t bytes) {
  const char *const p = static_cast<const char *>(address);
  const auto &arrays = arena().arrays;
  return std::any_of(arrays.begin(), arrays.end(),
                     [&](const Array &array) { return p >= array.begin && p + bytes <= array.begin + array.bytes; });
}

}  // namespace emu
