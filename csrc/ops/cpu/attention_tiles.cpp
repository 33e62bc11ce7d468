// Compiled once per instruction set: everything here lives in namespace ROCFORGE_CPU_ISA.
#include "ops/cpu/attention/backward_mask.h"
#include "ops/cpu/attention/backward_rows.h"
#include "ops/cpu/attention/forward.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

// The three passes follow each other.
template <class Acc> int64_t backward_scratch(const Attention &a) {
  const int64_t rows = QueryPass<Acc>(a, nullptr).arena.used(), keys = KeyGradients<Acc>(a, nullptr).arena.used();
  const int64_t mask = MaskGradients<Acc>(a, nullptr).arena.used();
  return rows > keys ? (rows > mask ? rows : mask) : (keys > mask ? keys : mask);
}

template <class Acc> constexpr AttentionTiles tiles() {
  return {kRowTile,     kKeyTile,    forward_scratch<Acc>, backward_scratch<Acc>, partial_size<Acc>,
          forward<Acc>, finish<Acc>, backward_rows<Acc>,   backward_keys<Acc>,    backward_mask<Acc>};
}

}  // namespace

extern const AttentionKernels kAttention;
const AttentionKernels kAttention{tiles<float>(), tiles<double>()};

}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
