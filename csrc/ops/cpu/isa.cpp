#include "ops/cpu/isa.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace rocforge::cpu {

namespace baseline {
extern const Kernels kKernels;
}
#if defined(__x86_64__)
namespace v3 {
extern const Kernels kKernels;
}
namespace v4 {
extern const Kernels kKernels;
}
#endif

namespace {

struct Candidate {
  const Kernels *kernels;
  bool runs;
};

const Kernels &choose() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool runs_v3 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool runs_v4 = runs_v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                       __builtin_cpu_supports("avx512vl");
  const Candidate best_first[] = {{&v4::kKernels, runs_v4}, {&v3::kKernels, runs_v3}, {&baseline::kKernels, true}};
#else
  const Candidate best_first[] = {{&baseline::kKernels, true}};
#endif
  const char *wanted = std::getenv("ROCFORGE_CPU_ISA");
  for (const Candidate &candidate : best_first) {
    if (candidate.runs && (!wanted || std::strcmp(wanted, candidate.kernels->isa) == 0)) return *candidate.kernels;
  }
  throw std::runtime_error(std::string("ROCFORGE_CPU_ISA=") + wanted +
                           ": this processor or this build has no such instruction set (baseline, v3 or v4 on x86-64)");
}

}  // namespace

const Kernels &kernels() {
  static const Kernels &chosen = choose();
  return chosen;
}

}  // namespace rocforge::cpu
