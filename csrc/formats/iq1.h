// What IQ1_S and IQ1_M share: levels in eighths, -1, 0 or 1 from the codebook with an eighth added or taken away.
#pragma once

#include "formats/common.h"
#include "formats/tables/iq1.h"

namespace rocforge::formats {

ROCFORGE_HD Int8x8 iq1_levels(uint32_t entry, bool minus) {
  const uint32_t digits = lookup(kIQ1Grid, entry);
  const Int8x8 eighths = join(digits & 0x0f0f0f0f, digits >> 4 & 0x0f0f0f0f) << 3;  // 0, 8 or 16
  return subtract(eighths, minus ? 9 : 7);
}

}  // namespace rocforge::formats
