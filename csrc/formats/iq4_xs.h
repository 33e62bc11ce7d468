// IQ4_XS: 256 weights in 136 bytes, 4.25 bits a weight.
//     weight = d * (scale - 32) * levels[q]       scale of 6 bits for each 32 weights; the levels of IQ4_NL
#pragma once

#include "formats/common.h"
#include "formats/tables/iq4.h"

namespace rocforge::formats {

struct IQ4_XS : QuantizedFormat {
  static constexpr const char *name = "IQ4_XS";
  static constexpr int id = 23;
  static constexpr int block_size = 256;
  static constexpr int scale_size = 32;
  struct Block {
    Half d;
    uint8_t scales_h[2];  // uint16, bits 2 i .. 2 i + 1: high two bits of scale i
    uint8_t scales_l[4];  // low four bits of the scales, low nibbles first
    uint8_t qs[128];      // low nibble of byte 16 n + l: weight 32 n + l; high nibble: weight 32 n + 16 + l
  };
  static_assert(sizeof(Block) == 136);

  static ROCFORGE_HD Scale scale(const Block &block, int group) {
    const int i = group >> 2;
    const uint32_t low = block.scales_l[i >> 1] >> 4 * (i & 1) & 0x0f;
    const uint32_t high = load<uint16_t, 2>(block.scales_h) >> 2 * i & 0x03;
    return {to_float(block.d) * static_cast<float>(static_cast<int>(low | high << 4) - 32)};
  }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    return lookup16<IQ4Levels>(nibbles(load8<8>(block.qs + 16 * (group >> 2) + 8 * (group & 1)), group >> 1 & 1));
  }
};

}  // namespace rocforge::formats
