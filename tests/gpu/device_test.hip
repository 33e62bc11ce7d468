// The checks of this folder on the GPU of this machine. A program of its own, for any machine with a compiler:
//     nvcc -x cu -std=c++17 -arch=native -I csrc -I tests/gpu tests/gpu/device_test.hip -o
//     device_test hipcc -std=c++17 --offload-arch=native -I csrc -I tests/gpu tests/gpu/device_test.hip -o device_test
#include <cstdio>

#include "hip/gpu.h"
// gpu.h first.
#include "matrix_checks.h"
#include "memory_checks.h"
#include "wave_checks.h"

using namespace rocforge::gpu;

namespace {

Failure check_matrices_here() {
  switch (device_properties().arch) {
    case Arch::gfx9:
      return check_matrices<Arch::gfx9>();
    case Arch::gfx90a:
      return check_matrices<Arch::gfx90a>();
    case Arch::gfx942:
      return check_matrices<Arch::gfx942>();
    case Arch::gfx950:
      return check_matrices<Arch::gfx950>();
    case Arch::gfx10:
      return check_matrices<Arch::gfx10>();
    case Arch::gfx11:
      return check_matrices<Arch::gfx11>();
    case Arch::gfx12:
      return check_matrices<Arch::gfx12>();
    case Arch::sm80:
      return check_matrices<Arch::sm80>();
    case Arch::sm90:
      return check_matrices<Arch::sm90>();
  }
  return "unknown architecture";
}

}  // namespace

int main() {
  struct Check {
    const char *name;
    Failure (*run)();
  };
  const Check checks[] = {
      {"waves", check_wave},
      {"workgroups", check_workgroup},
      {"launch", check_launch},
      {"rounding to float16", [] { return check_rounding<f16>(reference_f16); }},
      {"rounding to bfloat16", [] { return check_rounding<bf16>(reference_bf16); }},
      {"widening", check_widening},
      {"negative zero", [] { return check_negative_zero<f16>() + check_negative_zero<bf16>(); }},
      {"unaligned loads", check_unaligned},
      {"formats", check_formats},
      {"matrices", check_matrices_here},
  };
  int failed = 0;
  for (const Check &check : checks) {
    Failure failure;
    try {
      failure = check.run();
    } catch (const std::exception &error) {
      failure = error.what();
    }
    std::printf("%-24s %s\n", check.name, failure.empty() ? "passed" : failure.c_str());
    failed += !failure.empty();
  }
  const int count = sizeof checks / sizeof *checks;
  std::printf("%d passed, %d failed\n", count - failed, failed);
  return failed != 0;
}
