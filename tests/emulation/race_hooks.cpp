// The functions that -fsanitize=thread makes compilers call, in place of the sanitizer's own library. Compiled with the
// names of both compilers; which of them appear depends on the compiler and the access.
#include <cstdint>
#include <cstring>

#include "race_check.h"

using emu::Access;

#define CODE __builtin_return_address(0)

namespace {

template <class T, class Change> T change(T *address, int order, Change new_value, const void *code) {
  constexpr int kAcquireRelease = 4;
  if (order >= kAcquireRelease) {
    emu::check_ticket(address, sizeof(T), code);
  } else {
    emu::check_access(address, sizeof(T), Access::atomic, code);
  }
  const T before = *address;
  *address = new_value(before);
  return before;
}

}  // namespace

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}

#define PLAIN(bytes)                                                                                \
  void __tsan_read##bytes(void *p) { emu::check_access(p, bytes, Access::read, CODE); }             \
  void __tsan_write##bytes(void *p) { emu::check_access(p, bytes, Access::write, CODE); }           \
  void __tsan_unaligned_read##bytes(void *p) { emu::check_access(p, bytes, Access::read, CODE); }   \
  void __tsan_unaligned_write##bytes(void *p) { emu::check_access(p, bytes, Access::write, CODE); } \
  void __tsan_read_write##bytes(void *p) { emu::check_access(p, bytes, Access::write, CODE); }      \
  void __tsan_unaligned_read_write##bytes(void *p) { emu::check_access(p, bytes, Access::write, CODE); }
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)

void __tsan_read_range(void *p, size_t bytes) { emu::check_access(p, bytes, Access::read, CODE); }
void __tsan_write_range(void *p, size_t bytes) { emu::check_access(p, bytes, Access::write, CODE); }

#define COPY(name, function)                             \
  void *name(void *to, const void *from, size_t bytes) { \
    emu::check_access(from, bytes, Access::read, CODE);  \
    emu::check_access(to, bytes, Access::write, CODE);   \
    return function(to, from, bytes);                    \
  }
#define FILL(name, function)                           \
  void *name(void *to, int value, size_t bytes) {      \
    emu::check_access(to, bytes, Access::write, CODE); \
    return function(to, value, bytes);                 \
  }
COPY(__tsan_memcpy, memcpy)
COPY(__tsan_memmove, memmove)
FILL(__tsan_memset, memset)

// g++ calls the library's functions without telling; the linker's --wrap sends those calls here.
void *__real_memcpy(void *, const void *, size_t);
void *__real_memmove(void *, const void *, size_t);
void *__real_memset(void *, int, size_t);
COPY(__wrap_memcpy, __real_memcpy)
COPY(__wrap_memmove, __real_memmove)
FILL(__wrap_memset, __real_memset)

#define ATOMIC(bits)                                                                                                   \
  uint##bits##_t __tsan_atomic##bits##_load(const uint##bits##_t *p, int) {                                            \
    emu::check_access(p, bits / 8, Access::atomic, CODE);                                                              \
    return *p;                                                                                                         \
  }                                                                                                                    \
  uint##bits##_t __tsan_atomic##bits##_fetch_add(uint##bits##_t *p, uint##bits##_t value, int order) {                 \
    return change(p, order, [=](uint##bits##_t before) { return before + value; }, CODE);                              \
  }                                                                                                                    \
  uint##bits##_t __tsan_atomic##bits##_compare_exchange_val(uint##bits##_t *p, uint##bits##_t expected,                \
                                                            uint##bits##_t value, int order, int) {                    \
    return change(p, order, [=](uint##bits##_t before) { return before == expected ? value : before; }, CODE);         \
  }                                                                                                                    \
  int __tsan_atomic##bits##_compare_exchange_strong(uint##bits##_t *p, uint##bits##_t *expected, uint##bits##_t value, \
                                                    int order, int) {                                                  \
    const uint##bits##_t wanted = *expected;                                                                           \
    *expected = change(p, order, [=](uint##bits##_t now) { return now == wanted ? value : now; }, CODE);               \
    return *expected == wanted;                                                                                        \
  }
ATOMIC(32)
ATOMIC(64)

}  // extern "C"
