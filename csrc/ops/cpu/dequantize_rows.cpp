// Compiled once per instruction set: everything here lives in namespace ROCFORGE_CPU_ISA.
#include "ops/cpu/dequantize_rows.h"

#include "formats/registry.h"
#include "ops/cpu/isa.h"

#define ROCFORGE_STRING_(x) #x
#define ROCFORGE_STRING(x) ROCFORGE_STRING_(x)

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

DecodeRow decode_row(int format, OutType out) {
  DecodeRow found = nullptr;
  formats::visit(format, [&](auto f) {
    using Format = decltype(f);
    switch (out) {
      case OutType::kFloat:
        found = decode<Format, float>;
        break;
      case OutType::kHalf:
        found = decode<Format, HalfBits>;
        break;
      case OutType::kBFloat16:
        found = decode<Format, BFloat16Bits>;
        break;
    }
  });
  return found;
}

}  // namespace

extern const AttentionKernels kAttention;  // attention_tiles.cpp
extern const LinearKernels kLinear;        // linear_methods.cpp
extern const Kernels kKernels;
const Kernels kKernels{ROCFORGE_STRING(ROCFORGE_CPU_ISA), decode_row, kAttention, kLinear};

}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
