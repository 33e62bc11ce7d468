// What the CPU's products with packed weights work on: pointers, strides and numbers, no torch. The methods are
// compiled once per instruction set (linear_methods.cpp); isa.h picks one.
#pragma once

#include "ops/cpu/attention.h"

namespace rocforge::cpu {

// Forward: left is input [rows, in], result [rows, out]. Gradient: left is grad [rows, out], result [rows, in].
struct Linear {
  const uint8_t *packed;  // [out, row_bytes]
  int64_t packed_row;     // stride in bytes
  int format;             // position in formats::kFormats
  int block_size, block_bytes;
  void (*decode)(const uint8_t *packed, void *out, int64_t weights);  // whole blocks to float32

  int64_t rows, in_features, out_features;
  Element type;              // of left, bias and result
  const char *left;          // contiguous
  const char *bias;          // [out]; null: none
  char *result;              // contiguous
  void *prepared = nullptr;  // left as the method wants it

  // Where weight `begin`, the first of a block, of packed row `row` is.
  ROCFORGE_HD const uint8_t *at(int64_t row, int64_t begin) const {
    return packed + row * packed_row + begin / block_size * block_bytes;
  }
  ROCFORGE_HD int64_t element_size() const { return type == Element::kDouble ? 8 : type == Element::kFloat ? 4 : 2; }
};

// One way to compute the result, in two steps of independent items. `scratch` is 64-byte aligned, one per thread.
struct LinearMethod {
  int64_t (*prepared_bytes)(const Linear &);
  int64_t (*prepare_items)(const Linear &);
  void (*prepare)(const Linear &, int64_t item);
  int64_t (*items)(const Linear &);
  int64_t (*scratch_bytes)(const Linear &);
  void (*run)(const Linear &, int64_t item, void *scratch);
};

struct LinearKernels {
  int few_rows;  // `few` takes at most this many rows, of float32, float16 or bfloat16
  LinearMethod few;
  LinearMethod panels_float32, panels_float64;
  LinearMethod gradient_float32, gradient_float64;
};

}  // namespace rocforge::cpu
