// Levels of IQ4_NL and IQ4_XS.
// Written by tools/make_tables.py from the `gguf` package.
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

// -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
struct IQ4Levels {
  static constexpr uint64_t lo = 0xf6eaddcfbfad9881, hi = 0x7159453526190d01;
};

}  // namespace rocforge::formats
