// Planted faults: each is reported by the checks that are there to find it, and the same kernels without a fault pass
// them all.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "hip/gpu.h"
// gpu.h first.
#include "faulty_kernels.h"
#include "matrix_checks.h"

namespace rocforge::gpu {
namespace {

#if defined(ROCFORGE_CHECK_ASAN)
constexpr bool kAsan = true, kRace = false;
#elif defined(ROCFORGE_CHECK_RACE)
constexpr bool kAsan = false, kRace = true;
#else
constexpr bool kAsan = false, kRace = false;
#endif

// Message of the error that the emulation reports; empty: none.
template <class Run> std::string reported(Run run) {
  try {
    run();
  } catch (const emu::Error &error) {
    return error.what();
  }
  return {};
}
#define EXPECT_REPORT(run, text) EXPECT_NE(reported([] { run; }).find(text), std::string::npos) << reported([] { run; })
#define EXPECT_NO_REPORT(run) EXPECT_EQ(reported([] { run; }), "")

// True if the sums of 5 rows of 1000 values come out.
template <Fault fault> bool sums_are_right() {
  constexpr int rows = 5, n = 1000, stride = 1008;
  Buffer<int> in(rows * stride), out(rows);
  for (int i = 0; i < rows * stride; ++i) in[i] = 1 + i % 7;
  launch({"sum_kernel", dim3(rows), kFaultThreads, nullptr}, sum_kernel<fault>, in.get(), out.get(), n, stride);
  bool right = true;
  for (int row = 0; row < rows; ++row) {
    int sum = 0;
    for (int i = 0; i < n; ++i) sum += in[row * stride + i];
    right &= out[row] == sum;
  }
  return right;
}

TEST(Faults, NoneInSums) { EXPECT_TRUE(sums_are_right<Fault::none>()); }
TEST(Faults, BarrierRemoved) {
  // Wrong in most orders: thread 0 adds up what other waves have not yet written.
  int wrong = 0;
  const emu::Settings before = emu::settings();
  for (uint32_t seed = 1; seed <= 8; ++seed) {
    emu::settings() = {emu::Order::random, seed};
    if (kRace) {
      EXPECT_REPORT(sums_are_right<Fault::barrier_removed>(), "LDS");
    } else {
      wrong += !sums_are_right<Fault::barrier_removed>();
    }
  }
  emu::settings() = before;
  EXPECT_TRUE(kRace || wrong > 4) << wrong;
}
TEST(Faults, WaveSizeLiteral) {
  if (kWave == 32) {
    EXPECT_REPORT(sums_are_right<Fault::wave_size_literal>(), "shuffle_xor");
  } else {
    EXPECT_FALSE(sums_are_right<Fault::wave_size_literal>());
  }
}
TEST(Faults, MaskOffByOne) { EXPECT_FALSE(sums_are_right<Fault::mask_off_by_one>()); }

// Unpacks 101 blocks into an allocation that ends with them; true if they come out.
template <Fault fault> bool unpacks_right(int sentinels = 0) {
  constexpr int count = 101;
  Buffer<uint8_t> blocks(18 * count), out(32 * count + sentinels);
  for (int i = 0; i < 18 * count; ++i) blocks[i] = static_cast<uint8_t>(i * 31);
  for (int i = 0; i < sentinels; ++i) out[32 * count + i] = 0xa5;
  launch({"unpack_kernel", dim3(2), kFaultThreads, nullptr}, unpack_kernel<fault>, blocks.get(), out.get(), count);
  bool right = true;
  for (int i = 0; i < 16 * count; ++i) {
    const int block = i / 16, at = i % 16;
    const uint8_t byte = blocks[18 * block + 2 + at];
    const uint8_t *const quarter = &out[32 * block + 8 * (at / 4)];
    right &= quarter[at % 4] == (byte & 15) && quarter[4 + at % 4] == byte >> 4;
  }
  for (int i = 0; i < sentinels; ++i) right &= out[32 * count + i] == 0xa5;
  return right;
}

TEST(Faults, NoneInUnpacking) { EXPECT_TRUE(unpacks_right<Fault::none>()); }
TEST(Faults, TailGuardMissing) {
  if (kAsan) {
    EXPECT_DEATH(unpacks_right<Fault::tail_guard_missing>(), "heap-buffer-overflow");
  }
  EXPECT_FALSE(unpacks_right<Fault::tail_guard_missing>(/*sentinels=*/32 * 128));
}
TEST(Faults, MisalignedLoad) {
  if (kAsan) {
    EXPECT_DEATH(unpacks_right<Fault::misaligned_load>(), "load of misaligned address");
  } else {
    EXPECT_TRUE(unpacks_right<Fault::misaligned_load>());  // the processor takes it: only a sanitizer can tell
  }
}
TEST(Faults, MisalignedVector) {
  EXPECT_REPORT(unpacks_right<Fault::misaligned_vector>(), "not aligned to 4 bytes at ");
}

template <Fault fault> bool products_are_right() {
  using M = Mma<f16>;
  constexpr int tiles = 3;
  Buffer<f16> a(tiles * M::kM * M::kK), b(tiles * M::kN * M::kK);
  Buffer<float> out(tiles * M::kM * M::kN);
  for (size_t i = 0; i < a.size(); ++i) a[i] = element<f16>(static_cast<int>(i * i % 63) - 31);
  for (size_t i = 0; i < b.size(); ++i) b[i] = element<f16>(static_cast<int>(i % 59) - 29);
  launch({"product_kernel", dim3(tiles), kWave, nullptr}, product_kernel<fault>, a.get(), b.get(), out.get());
  bool right = true;
  for (size_t i = 0; i < out.size(); ++i) {
    const size_t row = i / M::kN, col = i / (M::kM * M::kN) * M::kN + i % M::kN;
    float sum = 0;
    for (int k = 0; k < M::kK; ++k) sum += to_float(a[row * M::kK + k]) * to_float(b[col * M::kK + k]);
    right &= out[i] == sum;
  }
  return right;
}

TEST(Faults, NoneInProducts) { EXPECT_TRUE(products_are_right<Fault::none>()); }
TEST(Faults, RowMapWrong) { EXPECT_FALSE(products_are_right<Fault::row_map_wrong>()); }
TEST(Faults, SyncwaveRemoved) {
  if (kRace) {
    EXPECT_REPORT(products_are_right<Fault::syncwave_removed>(), "LDS");
  } else if (kArch == Arch::gfx11) {
    EXPECT_REPORT(products_are_right<Fault::syncwave_removed>(), "lanes l and l + 16 hold different operands");
  } else {
    EXPECT_FALSE(products_are_right<Fault::syncwave_removed>());
  }
}

template <Fault fault> bool lds_is_right() {
  Buffer<int> out(kFaultThreads);
  launch({"lds_kernel", dim3(1), kFaultThreads, nullptr}, lds_kernel<fault>, out.get(), 0);
  bool right = true;
  for (int t = 0; t < static_cast<int>(kFaultThreads); ++t) right &= out[t] == t;
  return right;
}

TEST(Faults, NoneInLds) { EXPECT_TRUE(lds_is_right<Fault::none>()); }
TEST(Faults, IndexOutOfBounds) {
  if (kAsan) {
    EXPECT_DEATH(lds_is_right<Fault::index_out_of_bounds>(), "use-after-poison|index 256 out of bounds");
  } else {
    EXPECT_REPORT(lds_is_right<Fault::index_out_of_bounds>(), "outside of the LDS array");
  }
}
TEST(Faults, IndexBeforeBegin) {
  if (kAsan) {
    EXPECT_DEATH(lds_is_right<Fault::index_before_begin>(), "use-after-poison|index -1 out of bounds");
  } else {
    EXPECT_REPORT(lds_is_right<Fault::index_before_begin>(), "outside of the LDS array");
  }
}
TEST(Faults, ReadBeforeWrite) {
  if (kRace) {
    EXPECT_REPORT(lds_is_right<Fault::read_before_write>(), "LDS was not written before");
  } else {
    EXPECT_FALSE(lds_is_right<Fault::read_before_write>());
  }
}

// Launches with these sizes.
void launch_large(dim3 grid, unsigned threads, size_t dynamic_lds) {
  Buffer<uint8_t> out(1024);
  launch({"large_kernel", grid, threads, nullptr, dynamic_lds}, large_kernel, out.get());
}

TEST(Faults, Limits) {
  constexpr size_t half = lds_bytes(kArch) / 2;
  EXPECT_NO_REPORT(launch_large(dim3(1), 1024, half));
  EXPECT_REPORT(launch_large(dim3(1), 1024, half + 16), "bytes with half, and this launch may use");
  // NVIDIA: 48 KiB where the launch does not ask for more, and the kernel has more in static arrays alone.
  constexpr bool tight = is_nvidia(kArch);
  if (tight) {
    EXPECT_REPORT(launch_large(dim3(1), 1024, 0), "bytes with half, and this launch may use 49152");
  } else {
    EXPECT_NO_REPORT(launch_large(dim3(1), 1024, 0));
  }
  EXPECT_REPORT(launch_large(dim3(1), 1024, 2 * half + 16), "bytes of dynamic LDS");
  EXPECT_REPORT(launch_large(dim3(1), 1024 + kWave, 0), "workgroups of");
  EXPECT_REPORT(launch_large(dim3(1), kWave / 2, 0), "in whole waves of");
  EXPECT_REPORT(launch_large(dim3(1), 0, 0), "workgroups of 0 threads");
  EXPECT_REPORT(launch_large(dim3(0), kWave, 0), "a grid of 0 x 1 x 1");
  EXPECT_REPORT(launch_large(dim3(1, 65536), kWave, 0), "a grid of 1 x 65536 x 1");
  EXPECT_REPORT(launch_large(dim3(1u << 27), kWave, 0), "a grid of ");
}

template <Fault fault> void meet() {
  Buffer<int> out(kFaultThreads);
  launch({"meeting_kernel", dim3(1), kFaultThreads, nullptr}, meeting_kernel<fault>, out.get());
}

TEST(Faults, NoneInMeetings) { EXPECT_NO_REPORT(meet<Fault::none>()); }
TEST(Faults, DivergentBarrier) {
  EXPECT_REPORT(meet<Fault::divergent_barrier>(), "divergent barrier: thread 7 is in syncthreads at ");
}
TEST(Faults, ExitBeforeBarrier) { EXPECT_REPORT(meet<Fault::exit_before_barrier>(), "thread 3 has exited"); }
TEST(Faults, TwoBarriers) { EXPECT_REPORT(meet<Fault::two_barriers>(), "divergent barrier"); }
TEST(Faults, DivergentShuffle) { EXPECT_REPORT(meet<Fault::divergent_shuffle>(), "divergent wave operation"); }
TEST(Faults, ExitBeforeShuffle) { EXPECT_REPORT(meet<Fault::exit_before_shuffle>(), ", in the same wave thread "); }
TEST(Faults, ShuffleMeetsBarrier) { EXPECT_REPORT(meet<Fault::shuffle_meets_barrier>(), "divergent wave operation"); }
TEST(Faults, TwoShufflesInHelper) { EXPECT_REPORT(meet<Fault::two_shuffles_in_helper>(), "divergent wave operation"); }
TEST(Faults, DivergentBroadcast) { EXPECT_REPORT(meet<Fault::divergent_broadcast>(), "different sources"); }

// Runs order_kernel on 9 workgroups; true if counts and swaps come out.
template <Fault fault> bool order_is_right() {
  constexpr int workgroups = 9;
  Buffer<int> out(workgroups * kFaultThreads), count(2), partial(workgroups), total(1);
  Buffer<uint32_t> tickets(1);
  launch({"order_kernel", dim3(workgroups), kFaultThreads, nullptr}, order_kernel<fault>, out.get(), count.get(),
         tickets.get(), partial.get(), total.get());
  bool right = count[0] == workgroups && total[0] == workgroups * (workgroups - 1) / 2;
  for (size_t i = 0; i < out.size(); ++i) right &= out[i] == static_cast<int>(i % kFaultThreads ^ 1);
  return right;
}

TEST(Faults, NoneInOrder) { EXPECT_TRUE(order_is_right<Fault::none>()); }

// What depends on the order in which the hardware happens to run is the race check's to find.
TEST(Faults, Races) {
  if (!kRace) GTEST_SKIP() << "needs the race check";
  EXPECT_REPORT(order_is_right<Fault::shuffle_orders_nothing>(), "race in LDS");
  EXPECT_REPORT(order_is_right<Fault::workgroups_race>(), "race in global memory");
  EXPECT_REPORT(order_is_right<Fault::vectors_overlap>(), "race in global memory");
  EXPECT_REPORT(order_is_right<Fault::reader_and_writer_race>(), "race in global memory");
  EXPECT_REPORT(order_is_right<Fault::reader_behind_others>(), "race in global memory");
  EXPECT_REPORT(order_is_right<Fault::atomic_and_plain_write>(), "race in global memory");
  EXPECT_REPORT(order_is_right<Fault::ticket_without_barrier>(), "race in global memory");
  // Both places, with their lines.
  const std::string report = reported([] { order_is_right<Fault::workgroups_race>(); });
  EXPECT_EQ(report.find("order_kernel, workgroup "), 0u) << report;
  EXPECT_NE(report.find(" at faulty_kernels.h:"), std::string::npos) << report;
}

// An error leaves nothing behind.
TEST(Faults, NextLaunchIsClean) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_REPORT(meet<Fault::divergent_barrier>(), "divergent barrier");
    EXPECT_TRUE(sums_are_right<Fault::none>());
    EXPECT_TRUE(order_is_right<Fault::none>());
  }
}

}  // namespace
}  // namespace rocforge::gpu
