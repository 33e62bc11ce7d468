// NVFP4: 64 weights in 36 bytes, 4.5 bits a weight: FP4 E2M1 under one UE4M3 scale for each 16 weights.
//     weight = d / 2 * level       level: twice the value of the FP4 number
// A file may hold one more scale for the whole tensor, outside the blocks (`<base>.scale`, float32): it is not applied
// here.
#pragma once

#include "formats/common.h"
#include "formats/scale_types.h"
#include "formats/tables/fp4.h"

namespace rocforge::formats {

struct NVFP4 : QuantizedFormat {
  static constexpr const char *name = "NVFP4";
  static constexpr int id = 40;
  static constexpr int block_size = 64;
  static constexpr int scale_size = 16;
  struct Block {
    uint8_t d[4];
    uint8_t qs[32];  // low nibble of byte 8 n + l: weight 16 n + l; high nibble: weight 16 n + 8 + l
  };
  static_assert(sizeof(Block) == 36);

  static ROCFORGE_HD Scale scale(const Block &block, int group) {
    return {0.5f * float_from_ue4m3(block.d[group >> 1])};
  }
  static ROCFORGE_HD Int8x8 levels8(const Block &block, int group) {
    return lookup16<FP4Levels>(nibbles(load8<4>(block.qs + 8 * (group >> 1)), group & 1));
  }
};

}  // namespace rocforge::formats
