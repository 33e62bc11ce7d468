// Stacks and the switch between them.
#pragma once

#include <cstddef>

namespace emu {

struct Fiber {
  void *stack_pointer = nullptr;
  const void *stack = nullptr;  // lowest address; of the launching thread: known once it was left under ASan
  size_t stack_bytes = 0;
  void *fake_stack = nullptr;  // AddressSanitizer's, while the fiber does not run
};

// Gives `fiber` stack number `index` (0 .. 1023), on which `entry` starts at the first switch to it. `entry` never
// returns.
void prepare_fiber(Fiber &fiber, int index, void (*entry)());

// Leaves `from` and continues `to`. `last`: `from` will never be continued.
void switch_fiber(Fiber &from, Fiber &to, bool last = false);

// First statement of every entry function; `launcher` is what switched to it if nothing else has run since.
void entered_fiber(Fiber &launcher);

// Forgets what the frames of abandoned fibers left in AddressSanitizer's shadow memory.
void abandon_fibers();

bool is_fiber_stack(const void *address);

}  // namespace emu
