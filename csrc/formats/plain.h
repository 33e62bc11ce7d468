// Types of one value each: a cast to float32. They are stored at any alignment, like every block.
#pragma once

#include "formats/common.h"

namespace rocforge::formats {

struct F32 : PlainFormat {
  static constexpr const char *name = "F32";
  static constexpr int id = 0;
  using Block = Float;
  static ROCFORGE_HD float value(const Block &block) { return to_float(block); }
};

struct F16 : PlainFormat {
  static constexpr const char *name = "F16";
  static constexpr int id = 1;
  using Block = Half;
  static ROCFORGE_HD float value(const Block &block) { return float_from_half_in_loop(load<uint16_t, 2>(block.bytes)); }
};

struct BF16 : PlainFormat {
  static constexpr const char *name = "BF16";
  static constexpr int id = 30;
  struct Block {
    uint8_t bytes[2];
  };
  static ROCFORGE_HD float value(const Block &block) {
    return bit_cast<float>(static_cast<uint32_t>(load<uint16_t, 2>(block.bytes)) << 16);
  }
};

struct F64 : PlainFormat {
  static constexpr const char *name = "F64";
  static constexpr int id = 28;
  struct Block {
    uint8_t bytes[8];
  };
  static ROCFORGE_HD float value(const Block &block) { return static_cast<float>(load<double, 8>(block.bytes)); }
};

struct I8 : PlainFormat {
  static constexpr const char *name = "I8";
  static constexpr int id = 24;
  struct Block {
    uint8_t bytes[1];
  };
  static ROCFORGE_HD float value(const Block &block) { return static_cast<int8_t>(block.bytes[0]); }
};

struct I16 : PlainFormat {
  static constexpr const char *name = "I16";
  static constexpr int id = 25;
  struct Block {
    uint8_t bytes[2];
  };
  static ROCFORGE_HD float value(const Block &block) { return load<int16_t, 2>(block.bytes); }
};

struct I32 : PlainFormat {
  static constexpr const char *name = "I32";
  static constexpr int id = 26;
  struct Block {
    uint8_t bytes[4];
  };
  static ROCFORGE_HD float value(const Block &block) { return static_cast<float>(load<int32_t, 4>(block.bytes)); }
};

struct I64 : PlainFormat {
  static constexpr const char *name = "I64";
  static constexpr int id = 27;
  struct Block {
    uint8_t bytes[8];
  };
  static ROCFORGE_HD float value(const Block &block) { return static_cast<float>(load<int64_t, 8>(block.bytes)); }
};

}  // namespace rocforge::formats
