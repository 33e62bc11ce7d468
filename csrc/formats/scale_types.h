// Scales of eight bits.
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

// E8M0: 2^(e - 127); 255 is NaN. The smallest, 2^-127, is a float32 subnormal.
ROCFORGE_HD float float_from_e8m0(uint32_t e) {
  return bit_cast<float>(e == 0 ? 0x00400000u : e == 255 ? 0x7fc00000u : e << 23);
}

// UE4M3: (1 + m / 8) * 2^(e - 7), m * 2^-9 where e is 0; the top bit is unused. 0x7f is NaN there and 0 in ggml.
ROCFORGE_HD float float_from_ue4m3(uint32_t byte) {
  const uint32_t e = byte >> 3 & 0x0f, m = byte & 0x07;
  const float subnormal = static_cast<float>(m) * 0x1p-9f;
  const float normal = bit_cast<float>((e + 120) << 23 | m << 20);
  return byte == 0x7f ? 0.0f : e == 0 ? subnormal : normal;
}

}  // namespace rocforge::formats
