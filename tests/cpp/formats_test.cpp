// The formats' own promises, for every format of the registry; their values are compared with ggml's in Python.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <random>
#include <set>
#include <vector>

#include "formats/registry.h"

namespace rocforge::formats {
namespace {

uint32_t bits_of(float value) { return bit_cast<uint32_t>(value); }

bool same(float a, float b) { return bits_of(a) == bits_of(b) || (std::isnan(a) && std::isnan(b)); }

template <class F> std::vector<typename F::Block> random_blocks(int count) {
  std::vector<typename F::Block> blocks(count);
  std::mt19937 random(F::id + 7);
  auto *const bytes = reinterpret_cast<uint8_t *>(blocks.data());
  for (size_t i = 0; i < count * sizeof(typename F::Block); ++i) bytes[i] = static_cast<uint8_t>(random());
  return blocks;
}

// Calls test(Format{}) for every quantised format.
template <class Test> void for_each_quantised(Test test) {
  for (int i = 0; i < AllFormats::size; ++i) {
    visit(i, [&](auto format) {
      if constexpr (!decltype(format)::is_plain) {
        SCOPED_TRACE(decltype(format)::name);
        test(format);
      }
    });
  }
}

TEST(Registry, FindsEveryFormatByNameAndId) {
  std::set<std::string_view> names;
  for (int i = 0; i < AllFormats::size; ++i) {
    EXPECT_TRUE(names.insert(kFormats[i].name).second) << kFormats[i].name;
    EXPECT_EQ(find(kFormats[i].name), i);
    if (kFormats[i].id >= 0) {
      EXPECT_EQ(find(static_cast<uint32_t>(kFormats[i].id)), i) << kFormats[i].name;
    }
  }
  EXPECT_EQ(find("q4_0"), -1);
  EXPECT_EQ(find(""), -1);
  for (const uint32_t id : {4u, 5u, 31u, 32u, 33u, 36u, 37u, 38u}) {
    EXPECT_EQ(find(id), -1) << id;
    EXPECT_FALSE(removed_type(id).empty()) << id;
  }
  for (const uint32_t id : {43u, 100u, 0x7fffffffu, 0xffffffffu}) {
    EXPECT_EQ(find(id), -1) << id;
    EXPECT_TRUE(removed_type(id).empty()) << id;
  }
  EXPECT_FALSE(visit(-1, [](auto) { FAIL(); }));
  EXPECT_FALSE(visit(AllFormats::size, [](auto) { FAIL(); }));
}

TEST(Formats, LevelsAreExactInHalfPrecision) {
  for_each_quantised([](auto format) {
    using F = decltype(format);
    int largest = 0;
    for (const auto &block : random_blocks<F>(500)) {
      for (int group = 0; group < F::block_size / 8; ++group) {
        for (int i = 0; i < 8; ++i) {
          const int integer = level(F::levels8(block, group), i);
          const uint32_t bits = bits_of(static_cast<float>(integer) * F::level_unit);
          const uint32_t exponent = bits >> 23 & 0xff;
          ASSERT_EQ(bits & 0xffff, 0u) << integer << " is not exact in bfloat16";
          ASSERT_EQ(bits & 0x1fff, 0u) << integer << " is not exact in float16";
          ASSERT_TRUE(integer == 0 || (exponent >= 127 - 14 && exponent <= 127 + 15)) << integer;
          largest = std::max(largest, std::abs(integer));
        }
      }
    }
    EXPECT_GT(largest, 0) << "random blocks hold levels other than zero";
  });
}

TEST(Formats, WeightIsScaleTimesLevelPlusOffset) {
  for_each_quantised([](auto format) {
    using F = decltype(format);
    const auto blocks = random_blocks<F>(500);
    for (size_t b = 0; b < blocks.size(); ++b) {
      for (int group = 0; group < F::block_size / 8; ++group) {
        const Scale scale = F::scale(blocks[b], group);
        float weights[8], in_row[8];
        decode8<F>(blocks[b], group, weights);
        decode8<F>(blocks.data(), static_cast<int64_t>(b) * (F::block_size / 8) + group, in_row);
        for (int i = 0; i < 8; ++i) {
          const float product = scale.d * (static_cast<float>(level(F::levels8(blocks[b], group), i)) * F::level_unit);
          const float expected = F::has_offset ? product + scale.offset : product;
          ASSERT_TRUE(same(weights[i], expected)) << weights[i] << " is not " << expected;
          ASSERT_TRUE(same(in_row[i], expected)) << in_row[i] << " is not " << expected;
        }
      }
    }
  });
}

TEST(Formats, ScaleSizeWeightsShareAScale) {
  for_each_quantised([](auto format) {
    using F = decltype(format);
    static_assert(F::scale_size % 16 == 0 && F::block_size % F::scale_size == 0);
    for (const auto &block : random_blocks<F>(500)) {
      for (int group = 0; group < F::block_size / 8; ++group) {
        const Scale scale = F::scale(block, group), first = F::scale(block, group - group % (F::scale_size / 8));
        ASSERT_TRUE(same(scale.d, first.d) && same(scale.offset, first.offset)) << group;
      }
    }
  });
}

// A block flush against unreadable memory, in front of it and behind it.
TEST(Formats, NothingOutsideOfABlockIsRead) {
  const size_t page = sysconf(_SC_PAGESIZE);
  auto *const pages =
      static_cast<uint8_t *>(mmap(nullptr, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(pages, MAP_FAILED);
  ASSERT_EQ(mprotect(pages, page, PROT_NONE), 0);
  ASSERT_EQ(mprotect(pages + 2 * page, page, PROT_NONE), 0);
  for_each_quantised([&](auto format) {
    using F = decltype(format);
    using Block = typename F::Block;
    const auto source = random_blocks<F>(1);
    for (uint8_t *place : {pages + page, pages + 2 * page - sizeof(Block)}) {
      std::memcpy(place, source.data(), sizeof(Block));
      for (int group = 0; group < F::block_size / 8; ++group) {
        float weights[8], expected[8];
        decode8<F>(*reinterpret_cast<const Block *>(place), group, weights);
        decode8<F>(source[0], group, expected);
        for (int i = 0; i < 8; ++i) ASSERT_TRUE(same(weights[i], expected[i]));
      }
    }
  });
  munmap(pages, 3 * page);
}

TEST(Conversions, EveryHalf) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const int exponent = half >> 10 & 0x1f, mantissa = half & 0x3ff;
    float expected = exponent == 0   ? std::ldexp(static_cast<float>(mantissa), -24)
                     : exponent < 31 ? std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25)
                     : mantissa == 0 ? INFINITY
                                     : NAN;
    if (half & 0x8000) expected = -expected;
    ASSERT_TRUE(same(float_from_half(half), expected)) << half;
    ASSERT_TRUE(same(float_from_half_in_loop(half), expected)) << half;
  }
}

TEST(Conversions, EveryScaleByte) {
  for (int byte = 0; byte < 255; ++byte) EXPECT_EQ(float_from_e8m0(byte), std::ldexp(1.0f, byte - 127)) << byte;
  EXPECT_TRUE(std::isnan(float_from_e8m0(255)));
  for (int byte = 0; byte < 256; ++byte) {
    const int exponent = byte >> 3 & 0x0f;
    const float mantissa = static_cast<float>(byte & 0x07);
    const float value = exponent ? std::ldexp(8 + mantissa, exponent - 10) : std::ldexp(mantissa, -9);
    EXPECT_EQ(float_from_ue4m3(byte), byte == 0x7f ? 0.0f : value) << byte;
  }
}

// The value of a six-bit number with `mantissa_bits` of mantissa, from its definition.
float mxfp6_value(int code, int mantissa_bits, int bias) {
  const int exponent = (code & 0x1f) >> mantissa_bits, mantissa = code & ((1 << mantissa_bits) - 1);
  const float magnitude =
      exponent == 0 ? std::ldexp(static_cast<float>(mantissa), 1 - bias - mantissa_bits)
                    : std::ldexp(static_cast<float>((1 << mantissa_bits) + mantissa), exponent - bias - mantissa_bits);
  return code & 0x20 ? -magnitude : magnitude;
}

template <class F> void expect_every_mxfp6_code(int mantissa_bits, int bias) {
  for (int code = 0; code < 64; ++code) {
    for (int position = 0; position < 32; ++position) {
      MXFP6Block block{130, {}};  // a scale of 8
      for (int bit = 0; bit < 6; ++bit) {
        const int at = 6 * position + bit;
        block.qs[at / 8] |= (code >> bit & 1) << at % 8;
      }
      for (int i = 0; i < 32; ++i) {
        float weights[8];
        decode8<F>(block, i / 8, weights);
        ASSERT_EQ(weights[i % 8], i == position ? 8 * mxfp6_value(code, mantissa_bits, bias) : 0.0f)
            << "code " << code << " at " << position << ", weight " << i;
      }
    }
  }
}

TEST(MXFP6, EveryCodeAtEveryPosition) {
  expect_every_mxfp6_code<MXFP6_E2M3>(3, 1);
  expect_every_mxfp6_code<MXFP6_E3M2>(2, 3);
}

}  // namespace
}  // namespace rocforge::formats
