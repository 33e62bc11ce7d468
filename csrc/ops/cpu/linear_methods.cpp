// Compiled once per instruction set: everything here lives in namespace ROCFORGE_CPU_ISA.
#include "ops/cpu/linear/few_rows.h"
#include "ops/cpu/linear/gradient.h"
#include "ops/cpu/linear/panels.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

template <class Method> constexpr LinearMethod method() {
  return {Method::prepared_bytes, Method::prepare_items, Method::prepare,
          Method::items,          Method::scratch_bytes, Method::run};
}

}  // namespace

extern const LinearKernels kLinear;
const LinearKernels kLinear{FewRows::kMost,           method<FewRows>(),         method<Panels<float>>(),
                            method<Panels<double>>(), method<Gradient<float>>(), method<Gradient<double>>()};

}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
