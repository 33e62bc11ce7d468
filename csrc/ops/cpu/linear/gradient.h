// The gradient of the input, grad [rows, out] x weights [out, in], from tiles of weights decoded into the cache.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include "ops/cpu/linear/operand.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

// An item is a tile of weight columns with a block of rows of grad.
template <class Acc> struct Gradient {
  static constexpr int64_t kPanel = 64, kBlock = 256;

  static int64_t prepared_bytes(const Linear &l) { return l.rows * l.out_features * sizeof(Acc); }
  static int64_t prepare_items(const Linear &l) { return l.rows; }
  static void prepare(const Linear &l, int64_t row) {
    prepare_row(l, row, l.out_features, l.out_features, static_cast<Acc *>(l.prepared) + row * l.out_features);
  }

  static int64_t items(const Linear &l) { return pieces(l.rows, kBlock) * pieces(l.in_features, kTileColumns); }
  struct Scratch {
    Scratch(const Linear &l, void *memory)
        : arena(memory),
          weights(arena.take<Acc>(kPanel * kTileColumns)),
          sums(arena.take<Acc>((l.rows < kBlock ? l.rows : kBlock) * kTileColumns)) {}
    Arena arena;
    Acc *weights, *sums;
  };
  static int64_t scratch_bytes(const Linear &l) { return Scratch(l, nullptr).arena.used(); }

  static void run(const Linear &l, int64_t item, void *memory) {
    const Scratch scratch(l, memory);
    const int64_t tiles = pieces(l.in_features, kTileColumns), column = item % tiles * kTileColumns;
    const int64_t columns = l.in_features - column < kTileColumns ? l.in_features - column : kTileColumns;
    const int64_t begin = item / tiles * kBlock, rows = l.rows - begin < kBlock ? l.rows - begin : kBlock;
    const Acc *const grad = static_cast<const Acc *>(l.prepared) + begin * l.out_features;
    for (int64_t i = 0; i < kPanel * kTileColumns; ++i) scratch.weights[i] = 0;  // what fills up the last vector
    for (int64_t i = 0; i < rows * kTileColumns; ++i) scratch.sums[i] = 0;
    for (int64_t out = 0; out < l.out_features; out += kPanel) {
      const int64_t count = l.out_features - out < kPanel ? l.out_features - out : kPanel;
      decode_tile(l, out, count, column, columns, scratch.weights);
      multiply(Left<Acc>{grad + out, l.out_features, 1}, Right<Acc>{scratch.weights, kTileColumns},
               Sums<Acc>{scratch.sums, kTileColumns}, rows, round_up_to_lanes<Acc>(columns), count, Onto<Acc>{true});
    }
    for (int64_t r = 0; r < rows; ++r) {
      store_result(l, scratch.sums + r * kTileColumns, begin + r, l.in_features, column, columns);
    }
  }
};

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
