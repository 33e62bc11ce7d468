// Twice the values of FP4 E2M1.
// Written by tools/make_tables.py from the `gguf` package.
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

// 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12
struct FP4Levels {
  static constexpr uint64_t lo = 0x0c08060403020100, hi = 0xf4f8fafcfdfeff00;
};

}  // namespace rocforge::formats
