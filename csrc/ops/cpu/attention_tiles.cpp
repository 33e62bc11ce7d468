// Compiled once per instruction set: everything here lives in namespace ROCFORGE_CPU_ISA.
#include "ops/cpu/attention/backward.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

template <class Acc> constexpr AttentionTiles tiles() {
  return {kRowTile,     kKeyTile,    forward_scratch<Acc>, backward_scratch<Acc>, partial_size<Acc>,
          forward<Acc>, finish<Acc>, backward_rows<Acc>,   backward_keys<Acc>,    backward_mask<Acc>};
}

}  // namespace

extern const AttentionKernels kAttention;
const AttentionKernels kAttention{tiles<float>(), tiles<double>()};

}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
