// The one matrix product that attention is made of, with the tile's sums in registers.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include "ops/cpu/attention/lanes.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

// Elements are read one by one and broadcast, so either stride may be 1.
template <class Acc> struct Left {
  const Acc *data;
  int64_t row, step;
};

// Read and written a vector at a time: unit stride along a row, a whole number of vectors.
template <class Acc> struct Right {
  const Acc *data;
  int64_t step;
};
template <class Acc> struct Sums {
  Acc *data;
  int64_t row;
};

// What the product is added to: nothing, or what is there, which `factors` (one a row) multiplies first when given.
template <class Acc> struct Onto {
  bool sums = false;
  const Acc *factors = nullptr;
};

// 32 registers hold 16 sums, 2 vectors of the right operand and the broadcast element; 16 registers hold 12 sums.
constexpr int kBlockRows = kVectorBytes == 64 ? 8 : 6;

template <int kRows, int kVectors, class Acc>
ROCFORGE_HD void multiply_block(Left<Acc> a, Right<Acc> b, Sums<Acc> c, int64_t steps, Onto<Acc> onto) {
  constexpr int n = kLanes<Acc>;
  Vec<Acc> sums[kRows][kVectors] = {};
  for (int64_t step = 0; step < steps; ++step) {
    Vec<Acc> right[kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) right[j] = load(b.data + step * b.step + j * n);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const Vec<Acc> left = broadcast(a.data[i * a.row + step * a.step]);
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) sums[i][j] += left * right[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      Acc *const at = c.data + i * c.row + j * n;
      if (onto.sums) sums[i][j] += onto.factors ? load(at) * onto.factors[i] : load(at);
      store(at, sums[i][j]);
    }
  }
}

// Rows from `i` on, kRows at a time; returns where the next begin.
template <int kRows, int kVectors, class Acc>
ROCFORGE_HD int64_t multiply_rows(Left<Acc> a, Right<Acc> b, Sums<Acc> c, int64_t i, int64_t rows, int64_t steps,
                                  Onto<Acc> onto) {
  for (; i + kRows <= rows; i += kRows) {
    multiply_block<kRows, kVectors>(Left<Acc>{a.data + i * a.row, a.row, a.step}, b,
                                    Sums<Acc>{c.data + i * c.row, c.row}, steps,
                                    Onto<Acc>{onto.sums, onto.factors ? onto.factors + i : nullptr});
  }
  return i;
}

template <int kVectors, class Acc>
void multiply_columns(Left<Acc> a, Right<Acc> b, Sums<Acc> c, int64_t rows, int64_t steps, Onto<Acc> onto) {
  int64_t i = multiply_rows<kBlockRows, kVectors>(a, b, c, 0, rows, steps, onto);
  i = multiply_rows<4, kVectors>(a, b, c, i, rows, steps, onto);
  i = multiply_rows<2, kVectors>(a, b, c, i, rows, steps, onto);
  multiply_rows<1, kVectors>(a, b, c, i, rows, steps, onto);
}

// c[rows, columns] = a[rows, steps] * b[steps, columns], plus what `onto` says; columns is a multiple of kLanes.
template <class Acc>
void multiply(Left<Acc> a, Right<Acc> b, Sums<Acc> c, int64_t rows, int64_t columns, int64_t steps,
              Onto<Acc> onto = {}) {
  // Sums of at most kSteps products are added up: less rounding than one long sum, and a strip of the right operand,
  // two vectors wide, stays in the first-level cache while the left one passes by.
  constexpr int64_t n = kLanes<Acc>, kSteps = 64;
  for (int64_t step = 0; step < steps; step += kSteps) {
    const int64_t count = steps - step < kSteps ? steps - step : kSteps;
    const Left<Acc> left{a.data + step * a.step, a.row, a.step};
    const Acc *const right = b.data + step * b.step;
    int64_t j = 0;
    for (; j + 2 * n <= columns; j += 2 * n) {
      multiply_columns<2>(left, Right<Acc>{right + j, b.step}, Sums<Acc>{c.data + j, c.row}, rows, count, onto);
    }
    if (j < columns) {
      multiply_columns<1>(left, Right<Acc>{right + j, b.step}, Sums<Acc>{c.data + j, c.row}, rows, count, onto);
    }
    onto = {true};
  }
}

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
