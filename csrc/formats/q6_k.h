// Q6_K: 256 weights in 210 bytes, 6.5625 bits a weight.
//     weight = d * scale * (q - 32)       scale of 8 bits, signed, for each 16 weights
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

struct Q6_K : QuantizedFormat {
  static constexpr const char *name = "Q6_K";
  static constexpr int id = 14;
  static constexpr int block_size = 256;
  static constexpr int scale_size = 16;
  struct Block {
    uint8_t ql[128];     // low nibble of byte 64 n + l: weight 128 n + l; high nibble: weight 128 n + 64 + l
    uint8_t qh[64];      // bits 2 j .. 2 j + 1 of byte 32 n + l: the top two bits of weight 128 n + 32 j + l
    uint8_t scales[16];  // int8
    Half d;
  };
  static_assert(sizeof(Block) == 210);

  static ROCFORGE_HD Scale scale(const Block &block, int group) {
    return {to_float(block.d) * static_cast<float>(static_cast<int8_t>(block.scales[group >> 1]))};
  }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    const int n = group >> 4, j = group >> 2 & 3, l = 8 * (group & 3);
    const Int8x8 low = nibbles(load8<2>(block.ql + 64 * n + 32 * (j & 1) + l), j >> 1);
    const Int8x8 high = crumbs(load8<2>(block.qh + 32 * n + l), j);
    return subtract(low | high << 4, 32);
  }
};

}  // namespace rocforge::formats
