// The twelve bytes that Q4_K and Q5_K share: eight scales and eight mins of six bits.
//     bytes 0 .. 3: scales 0 .. 3 in the low six bits, the top two bits of scales 4 .. 7 above them
//     bytes 4 .. 7: likewise the mins
//     bytes 8 .. 11: the low four bits of scales 4 .. 7 in the low nibble, of mins 4 .. 7 in the high one
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

// Of the i-th 32 weights.
ROCFORGE_HD Scale k_scale(const Half &d, const Half &dmin, const uint8_t scales[12], int i) {
  const int k = i & 3;
  const uint32_t s = byte_of(scales, k), m = byte_of(scales, 4 + k), low = byte_of(scales, 8 + k);
  const uint32_t scale = i < 4 ? s & 0x3f : (low & 0x0f) | s >> 6 << 4;
  const uint32_t min = i < 4 ? m & 0x3f : low >> 4 | m >> 6 << 4;
  return {to_float(d) * static_cast<float>(scale), -(to_float(dmin) * static_cast<float>(min))};
}

}  // namespace rocforge::formats
