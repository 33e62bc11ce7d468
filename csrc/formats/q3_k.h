// Q3_K: 256 weights in 110 bytes, 3.4375 bits a weight.
//     weight = d * (scale - 32) * (q - 4)       scale of 6 bits for each 16 weights
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

struct Q3_K : QuantizedFormat {
  static constexpr const char *name = "Q3_K";
  static constexpr int id = 11;
  static constexpr int block_size = 256;
  static constexpr int scale_size = 16;
  struct Block {
    uint8_t hmask[32];   // bit i of byte l: the third bit of weight 32 i + l
    uint8_t qs[64];      // bits 2 j .. 2 j + 1 of byte 32 n + l: weight 128 n + 32 j + l
    uint8_t scales[12];  // nibbles of bytes 0 .. 7: low four bits of scales 0 .. 15 (low nibbles first);
                         // bits 2 i .. 2 i + 1 of byte 8 + k: high two bits of scale 4 i + k
    Half d;
  };
  static_assert(sizeof(Block) == 110);

  static ROCFORGE_HD Scale scale(const Block &block, int group) {
    const int i = group >> 1;
    const uint32_t low = byte_of(block.scales, i & 7) >> 4 * (i >> 3) & 0x0f;
    const uint32_t high = byte_of(block.scales, 8 + (i & 3)) >> 2 * (i >> 2) & 0x03;
    return {to_float(block.d) * static_cast<float>(static_cast<int>(low | high << 4) - 32)};
  }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    const int l = 8 * (group & 3);
    const Int8x8 low = crumbs(load8<2>(block.qs + 32 * (group >> 4) + l), group >> 2 & 3);
    const Int8x8 high = (load8<2>(block.hmask + l) >> (group >> 2)) & each(0x01);
    return subtract(low | high << 2, 4);
  }
};

}  // namespace rocforge::formats
