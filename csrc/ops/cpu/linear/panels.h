// Forward for many rows: tiles of weights are decoded into the cache and multiplied there. Rows of the input are the
// lanes of the vectors.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include "ops/cpu/linear/operand.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

// The input is cut into strips of one or two vectors of rows, each kept transposed: [strips, in, strip]. An item is a
// panel of packed rows with a block of input rows.
template <class Acc> struct Panels {
  static constexpr int64_t kPanel = 32, kBlock = 1024;

  static int64_t strip(const Linear &l) { return l.rows <= kLanes<Acc> ? kLanes<Acc> : 2 * kLanes<Acc>; }
  static Acc *strip_at(const Linear &l, int64_t first_row, int64_t column) {
    return static_cast<Acc *>(l.prepared) + first_row * l.in_features + column * strip(l);
  }

  static int64_t prepare_items(const Linear &l) { return pieces(l.rows, strip(l)); }
  static int64_t prepared_bytes(const Linear &l) { return prepare_items(l) * strip(l) * l.in_features * sizeof(Acc); }
  static void prepare(const Linear &l, int64_t item) {
    constexpr int64_t kColumns = 64;  // that many lines of every row are in the first-level cache at a time
    const int64_t width = strip(l), first = item * width;
    for (int64_t column = 0; column < l.in_features; column += kColumns) {
      const int64_t count = l.in_features - column < kColumns ? l.in_features - column : kColumns;
      for (int64_t r = 0; r < width; ++r) {
        Acc *const out = strip_at(l, first, column) + r;
        if (first + r < l.rows) {
          const int64_t at = (first + r) * l.in_features + column;
          load_row_transposed(l.type, l.left + at * l.element_size(), count, out, width);
        } else {
          for (int64_t i = 0; i < count; ++i) out[i * width] = 0;
        }
      }
    }
  }

  static int64_t items(const Linear &l) { return pieces(l.rows, kBlock) * pieces(l.out_features, kPanel); }
  // Not a multiple of a page, so that a column of sums does not share one set of the cache.
  static int64_t sums_row(const Linear &l) {
    return (l.rows < kBlock ? pieces(l.rows, strip(l)) * strip(l) : kBlock) + kLanes<Acc>;
  }
  struct Scratch {
    Scratch(const Linear &l, void *memory)
        : arena(memory), weights(arena.take<Acc>(kPanel * kTileColumns)), sums(arena.take<Acc>(kPanel * sums_row(l))) {}
    Arena arena;
    Acc *weights, *sums;
  };
  static int64_t scratch_bytes(const Linear &l) { return Scratch(l, nullptr).arena.used(); }

  static void run(const Linear &l, int64_t item, void *memory) {
    const Scratch scratch(l, memory);
    const int64_t panels = pieces(l.out_features, kPanel), width = strip(l), row_stride = sums_row(l);
    const int64_t out = item % panels * kPanel, count = l.out_features - out < kPanel ? l.out_features - out : kPanel;
    const int64_t begin = item / panels * kBlock, end = l.rows - begin < kBlock ? l.rows : begin + kBlock;
    for (int64_t i = 0; i < count * row_stride; ++i) scratch.sums[i] = 0;
    for (int64_t column = 0; column < l.in_features; column += kTileColumns) {
      const int64_t columns = l.in_features - column < kTileColumns ? l.in_features - column : kTileColumns;
      decode_tile(l, out, count, column, columns, scratch.weights);
      for (int64_t row = begin; row < end; row += width) {
        multiply(Left<Acc>{scratch.weights, kTileColumns, 1}, Right<Acc>{strip_at(l, row, column), width},
                 Sums<Acc>{scratch.sums + row - begin, row_stride}, count, width, columns, Onto<Acc>{true});
      }
    }
    for (int64_t row = begin; row < end; ++row) {
      Acc values[kPanel];
      for (int64_t i = 0; i < count; ++i) values[i] = scratch.sums[i * row_stride + row - begin];
      store_result(l, values, row, l.out_features, out, count);
    }
  }
};

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
