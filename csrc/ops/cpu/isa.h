// Inner loops that are compiled once per instruction set (cmake/cpu_isa.cmake), and the choice between them.
#pragma once

#include <cstdint>

#include "ops/cpu/attention.h"
#include "ops/cpu/linear.h"

namespace rocforge::cpu {

enum class OutType { kFloat, kHalf, kBFloat16 };

// Decodes `weights` weights (whole blocks) that start at `packed` into contiguous `out`.
using DecodeRow = void (*)(const uint8_t *packed, void *out, int64_t weights);

struct Kernels {
  const char *isa;
  DecodeRow (*decode_row)(int format, OutType out);  // format: position in formats::kFormats
  const AttentionKernels &attention;
  const LinearKernels &linear;
};

// Those of the best instruction set that this processor runs, or of the one named by the environment variable
// ROCFORGE_CPU_ISA (baseline, v3, v4): decoded weights are the same bit for bit, attention and linear within rounding.
const Kernels &kernels();

}  // namespace rocforge::cpu
