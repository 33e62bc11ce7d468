#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if defined(ROCFORGE_EMULATE_ASAN)
  #include <sanitizer/asan_interface.h>
  #include <sanitizer/common_interface_defs.h>
#endif

#if !defined(__x86_64__)
  #error "the emulation switches fibers by hand and knows x86-64 only"
#endif

// Saves what a function call preserves, changes stacks and leaves by a jump: the processor predicts a `ret` by the call
// that is no longer there, which costs three times as much.
extern "C" void emu_switch_stack(void **save, void *load);
asm(R"(
.text
.globl emu_switch_stack
.hidden emu_switch_stack
.type emu_switch_stack, @function
emu_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rax
  jmp *%rax
.size emu_switch_stack, .-emu_switch_stack
)");

namespace emu {
namespace {

constexpr size_t kStackBytes = 256 << 10, kGuardBytes = 4096;
constexpr size_t kStride = kGuardBytes + kStackBytes;
constexpr int kFibers = 1024;

// Reserved, not yet backed by memory, with an unreadable page below each stack.
char *stacks() {
  static char *const memory = [] {
    void *p =
        mmap(nullptr, kFibers * kStride, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    for (int i = 0; i < kFibers; ++i) mprotect(static_cast<char *>(p) + i * kStride, kGuardBytes, PROT_NONE);
    return static_cast<char *>(p);
  }();
  return memory;
}

}  // namespace

void prepare_fiber(Fiber &fiber, int index, void (*entry)()) {
  char *const stack = stacks() + index * kStride + kGuardBytes;
  // What emu_switch_stack pops: six registers and the entry, then no return address. The stack pointer on entry is 8
  // below a multiple of 16, as after a call.
  void **const frame = reinterpret_cast<void **>(stack + kStackBytes) - 8;
  for (int i = 0; i < 8; ++i) frame[i] = nullptr;
  frame[6] = reinterpret_cast<void *>(entry);
  fiber = {frame, stack, kStackBytes, nullptr};
}

void switch_fiber(Fiber &from, Fiber &to, [[maybe_unused]] bool last) {
#if defined(ROCFORGE_EMULATE_ASAN)
  __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack, to.stack, to.stack_bytes);
#endif
  emu_switch_stack(&from.stack_pointer, to.stack_pointer);
#if defined(ROCFORGE_EMULATE_ASAN)
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

void entered_fiber([[maybe_unused]] Fiber &launcher) {
#if defined(ROCFORGE_EMULATE_ASAN)
  const void *bottom;
  size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
  if (!is_fiber_stack(bottom)) {
    launcher.stack = bottom;
    launcher.stack_bytes = bytes;
  }
#endif
}

void abandon_fibers() {
#if defined(ROCFORGE_EMULATE_ASAN)
  __asan_unpoison_memory_region(stacks(), kFibers * kStride);
#endif
}

bool is_fiber_stack(const void *address) {
  const auto p = reinterpret_cast<uintptr_t>(address), begin = reinterpret_cast<uintptr_t>(stacks());
  return p - begin < kFibers * kStride;
}

}  // namespace emu
