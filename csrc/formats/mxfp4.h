// MXFP4: 32 weights in 17 bytes, 4.25 bits a weight (OCP MX v1.0: FP4 E2M1 under one E8M0 scale).
//     weight = 2^(e - 127) / 2 * level       level: twice the value of the FP4 number
#pragma once

#include "formats/common.h"
#include "formats/scale_types.h"
#include "formats/tables/fp4.h"

namespace rocforge::formats {

struct MXFP4 : QuantizedFormat {
  static constexpr const char *name = "MXFP4";
  static constexpr int id = 39;
  static constexpr int block_size = 32;
  static constexpr int scale_size = 32;
  struct Block {
    uint8_t e;
    uint8_t qs[16];  // low nibble of byte j: weight j; high nibble: weight j + 16
  };
  static_assert(sizeof(Block) == 17);

  static ROCFORGE_HD Scale scale(const Block &block, int) { return {0.5f * float_from_e8m0(block.e)}; }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    return lookup16<FP4Levels>(nibbles(load8(block.qs + 8 * (group & 1)), group >> 1));
  }
};

}  // namespace rocforge::formats
