// The race check: what code compiled with -fsanitize=thread calls at every memory access (race_hooks.cpp).
#pragma once

#include <cstddef>

namespace emu {

enum class Access { read, write, atomic };  // an atomic one counts as a write that does not race with other atomics

// `code`: an address in the instruction that follows the access.
void check_access(const void *address, size_t bytes, Access access, const void *code);

// An atomic operation with acquire and release order.
void check_ticket(const void *address, size_t bytes, const void *code);

}  // namespace emu
