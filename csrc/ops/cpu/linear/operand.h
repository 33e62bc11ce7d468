// Rows of the left operand into the accumulating type, rows of the result out of it, and decoded tiles of weights.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include "ops/cpu/attention/memory.h"
#include "ops/cpu/linear.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

// Columns of packed weights decoded at a time: whole blocks of every format.
constexpr int64_t kTileColumns = 256;

ROCFORGE_HD int64_t pieces(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }

// Row `row` of left [rows, width] to `out`, zeros up to `padded`; a row past the last is zeros.
template <class Acc> void prepare_row(const Linear &l, int64_t row, int64_t width, int64_t padded, Acc *out) {
  const bool exists = row < l.rows;
  load_row(l.type, exists ? l.left + row * width * l.element_size() : nullptr, exists ? width : 0, padded, out);
}

// Columns first .. first + count of a row of result [rows, width], with the bias of these columns where there is one.
template <class Acc>
void store_result(const Linear &l, Acc *values, int64_t row, int64_t width, int64_t first, int64_t count) {
  if (l.bias) {
    with_type(l.type, l.bias, [&](const auto *bias) {
      for (int64_t i = 0; i < count; ++i) values[i] += static_cast<Acc>(number(bias[first + i]));
    });
  }
  store_row(values, l.type, l.result + (row * width + first) * l.element_size(), count);
}

// Weights of `count` packed rows from `row` on, columns begin .. begin + columns (at most kTileColumns), to
// out [count, kTileColumns]. float32 is enough for any weight.
template <class Acc>
void decode_tile(const Linear &l, int64_t row, int64_t count, int64_t begin, int64_t columns, Acc *out) {
  for (int64_t i = 0; i < count; ++i, out += kTileColumns) {
    if constexpr (sizeof(Acc) == sizeof(float)) {
      l.decode(l.at(row + i, begin), out, columns);
    } else {
      float decoded[kTileColumns];
      l.decode(l.at(row + i, begin), decoded, columns);
      for (int64_t j = 0; j < columns; ++j) out[j] = decoded[j];
    }
  }
}

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
