// TQ1_0: 256 weights in 54 bytes, 1.6875 bits a weight.
//     weight = d * (trit - 1)
// A byte holds five base-3 digits as a fraction of 256: times 3^n, its low byte is the fraction after digit n - 1, and
// three times that fraction, shifted down by 8, is digit n.
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

struct TQ1_0 : QuantizedFormat {
  static constexpr const char *name = "TQ1_0";
  static constexpr int id = 34;
  static constexpr int block_size = 256;
  static constexpr int scale_size = 256;
  struct Block {
    uint8_t qs[48];  // digit n of byte l: weight 32 n + l (l < 32), weight 160 + 16 n + l - 32 (l >= 32)
    uint8_t qh[4];   // digit n < 4 of byte l: weight 240 + 4 n + l
    Half d;
  };
  static_assert(sizeof(Block) == 54);

  static ROCFORGE_HD Scale scale(const Block &block, int) { return {to_float(block.d)}; }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    const bool last = group >= 30;  // qh: two digits of each of its four bytes
    const int n = last ? 2 * (group - 30) : group < 20 ? group >> 2 : (group - 20) >> 1;
    const uint8_t *const bytes = last         ? block.qh
                                 : group < 20 ? block.qs + 8 * (group & 3)
                                              : block.qs + 32 + 8 * (group & 1);
    if constexpr (Int8x8::size == 1) {
      if (!last) return {{digit(load<Word, 2>(bytes), n)}};
    }
    return join(digit(load<uint32_t, 2>(bytes), n),
                digit(load<uint32_t, 2>(last ? bytes : bytes + 4), last ? n + 1 : n));
  }

 private:
  // Digit n of every byte, minus 1. Bytes are multiplied two apart, so that products have room.
  template <class Integer> static ROCFORGE_HD Integer digit(Integer bytes, int n) {
    constexpr Integer kEven = ~Integer{0} / 0xffff * 0x00ff, kOnes = kEven / 0xff * 0x0101;
    const Integer power = 0x511b090301 >> 8 * n & 0xff;  // 81, 27, 9, 3, 1
    const Integer even = (bytes & kEven) * power & kEven, odd = (bytes >> 8 & kEven) * power & kEven;
    const Integer digits = (even * 3 >> 8 & kEven) | (odd * 3 & kEven << 8);
    return ((digits | kOnes << 7) - kOnes) ^ kOnes << 7;
  }
};

}  // namespace rocforge::formats
