// The workgroup's LDS: filled with 0xFF (NaN as float, half and bfloat16) for each workgroup, guarded on both sides of
// each array.
#pragma once

#include <cstddef>

namespace emu {

// Forgets the arrays of the workgroup before.
void begin_lds(size_t dynamic_bytes, size_t limit);

// The array next to which a guard was overwritten, or null. Where AddressSanitizer or the race check run, they report
// the access itself.
const char *overwritten_lds_guard();

bool is_lds(const void *address);

// Whether [address, address + bytes) lies in one array.
bool is_inside_lds_array(const void *address, size_t bytes);

}  // namespace emu
