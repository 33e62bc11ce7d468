// The checks of tests/gpu in the emulation, in every order of threads and workgroups.
#include <gtest/gtest.h>

#include "hip/gpu.h"
// gpu.h first.
#include "matrix_checks.h"
#include "memory_checks.h"
#include "wave_checks.h"

namespace rocforge::gpu {
namespace {

class Device : public testing::TestWithParam<emu::Order> {
 protected:
  Device() : before_(emu::settings()) { emu::settings().order = GetParam(); }
  ~Device() override { emu::settings() = before_; }

 private:
  const emu::Settings before_;
};
INSTANTIATE_TEST_SUITE_P(, Device, testing::Values(emu::Order::forward, emu::Order::reverse, emu::Order::random),
                         [](const auto &info) {
                           return info.param == emu::Order::forward   ? "Forward"
                                  : info.param == emu::Order::reverse ? "Reverse"
                                                                      : "Random";
                         });

TEST_P(Device, Wave) { EXPECT_EQ(check_wave(), ""); }
TEST_P(Device, Workgroup) { EXPECT_EQ(check_workgroup(), ""); }
TEST_P(Device, Launch) { EXPECT_EQ(check_launch(), ""); }
TEST_P(Device, Matrices) { EXPECT_EQ(check_matrices<kArch>(), ""); }

TEST(Memory, RoundingToFloat16) { EXPECT_EQ(check_rounding<f16>(reference_f16), ""); }
TEST(Memory, RoundingToBFloat16) { EXPECT_EQ(check_rounding<bf16>(reference_bf16), ""); }
TEST(Memory, Widening) { EXPECT_EQ(check_widening(), ""); }
TEST(Memory, NegativeZero) { EXPECT_EQ(check_negative_zero<f16>() + check_negative_zero<bf16>(), ""); }
TEST(Memory, UnalignedLoads) { EXPECT_EQ(check_unaligned(), ""); }
TEST(Memory, Formats) { EXPECT_EQ(check_formats(), ""); }

TEST(Matrices, Int8OfGfx90a) {
  if constexpr (kArch == Arch::gfx942) {
    EXPECT_EQ((check_matrix<Mfma16x16<int8_t, Arch::gfx90a>, kArch>("int8, 16x16x16")), "");
    EXPECT_EQ((check_matrix<Mfma32x32<int8_t, Arch::gfx90a>, kArch>("int8, 32x32x8")), "");
  } else {
    GTEST_SKIP() << "a layout of MFMA";
  }
}

TEST(Architectures, AreNamedByTheRuntime) {
  EXPECT_EQ(arch_named("gfx90a:sramecc+:xnack-"), Arch::gfx90a);
  EXPECT_EQ(arch_named("gfx906"), Arch::gfx9);
  EXPECT_EQ(arch_named("gfx942:sramecc+:xnack-"), Arch::gfx942);
  EXPECT_EQ(arch_named("gfx950"), Arch::gfx950);
  EXPECT_EQ(arch_named("gfx1030"), Arch::gfx10);
  EXPECT_EQ(arch_named("gfx1151"), Arch::gfx11);
  EXPECT_EQ(arch_named("gfx1201"), Arch::gfx12);
  EXPECT_EQ(arch_named("sm_86"), Arch::sm80);
  EXPECT_EQ(arch_named("sm_90"), Arch::sm90);
  EXPECT_THROW(arch_named("gfx1250"), std::runtime_error);
  EXPECT_THROW(arch_named("sm_75"), std::runtime_error);
}

}  // namespace
}  // namespace rocforge::gpu
