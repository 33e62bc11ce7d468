// Forward for a few rows: each packed block is decoded once, in registers, and multiplied with every row there.
// Compiled once per instruction set: ROCFORGE_CPU_ISA names the namespace.
#pragma once

#include "formats/registry.h"
#include "ops/cpu/dequantize_rows.h"
#include "ops/cpu/linear/operand.h"

namespace rocforge::cpu::ROCFORGE_CPU_ISA {
namespace {

#if defined(__AVX2__)
ROCFORGE_HD void add(Float8 &sum, const Float8 &value) { sum += value; }
ROCFORGE_HD void add_product(Float8 &sum, const Float8 &weights, const float *x) {
  Float8 values;
  std::memcpy(&values, x, sizeof values);
  sum += weights * values;
}
#else
ROCFORGE_HD void add(Float8 &sum, const Float8 &value) { sum.lo += value.lo, sum.hi += value.hi; }
ROCFORGE_HD void add_product(Float8 &sum, const Float8 &weights, const float *x) {
  Float8 values;
  std::memcpy(&values, x, sizeof values);
  sum.lo += weights.lo * values.lo, sum.hi += weights.hi * values.hi;
}
#endif

ROCFORGE_HD float sum_of_lanes(const Float8 &v) {
  formats::Float4 halves[2];
  std::memcpy(halves, &v, sizeof v);
  const formats::Float4 sum = halves[0] + halves[1];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// Sums of kRows dot products. A fused multiply-add takes several cycles and two can start in each: four chains of them
// keep the processor busy.
template <int kRows> class DotSums {
  static constexpr int kChains = 4 / kRows;

 public:
  // weights8 [8] with x [kRows, 8]; `row` is x's stride. Chain `i` % kChains.
  ROCFORGE_HD void add8(const Float8 &weights8, const float *x, int64_t row, int i) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) add_product(chains_[i % kChains][r], weights8, x + r * row);
  }
  // Adds the chains to the totals and starts them anew: a sum of short sums is rounded less than one long sum.
  ROCFORGE_HD void fold() {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int i = 0; i < kChains; ++i) {
        add(totals_[r], chains_[i][r]);
        chains_[i][r] = Float8{};
      }
    }
  }
  ROCFORGE_HD void store(float *out) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) out[r] = sum_of_lanes(totals_[r]);
  }

 private:
  Float8 chains_[kChains][kRows] = {}, totals_[kRows] = {};
};

constexpr int kFold = 512;  // weights between two folds

// One block, or one chunk of plain values, with as many columns of x [kRows, ...].
template <class Format, int kRows>
ROCFORGE_HD void add_block(DotSums<kRows> &sums, const typename Format::Block &block, const float *x, int64_t row) {
  constexpr int kGroups = Format::scale_size / 8;
#pragma GCC unroll 16
  for (int group = 0; group < Format::block_size / 8; group += kGroups) {
    const formats::Scale scale = Format::scale(block, group);
#pragma GCC unroll 32
    for (int i = 0; i < kGroups; ++i) {
      Float8 decoded;
      formats::weights8<Format>(Format::levels8(block, group + i), scale, decoded);
      sums.add8(decoded, x + 8 * (group + i), row, i);
    }
  }
}
template <class Format, int kRows>
ROCFORGE_HD void add_chunk(DotSums<kRows> &sums, const typename Format::Block *values, int count, const float *x,
                           int64_t row) {
  Float8 decoded[kChunk / 8];
  decode_chunk<Format>(values, count, reinterpret_cast<float *>(decoded));
#pragma GCC unroll 8
  for (int i = 0; i < kChunk / 8; ++i) sums.add8(decoded[i], x + 8 * i, row, i);
}

// A packed row with each of kRows rows of x. Rows of x are `row` floats apart, padded with zeros to whole chunks.
template <class Format, int kRows>
void dots(const uint8_t *__restrict packed, int64_t weights, const float *__restrict x, int64_t row,
          float *__restrict out) {
  const auto *const blocks = reinterpret_cast<const typename Format::Block *>(packed);
  DotSums<kRows> sums;
  for (int64_t begin = 0; begin < weights; begin += kFold) {
    const int64_t end = weights - begin < kFold ? weights : begin + kFold;
    if constexpr (Format::is_plain) {
      for (int64_t i = begin; i < end; i += kChunk) {
        add_chunk<Format>(sums, blocks + i, static_cast<int>(end - i < kChunk ? end - i : kChunk), x + i, row);
      }
    } else {
      for (int64_t i = begin; i < end; i += Format::block_size) {
        add_block<Format>(sums, blocks[i / Format::block_size], x + i, row);
      }
    }
    sums.fold();
  }
  sums.store(out);
}

using Dots = void (*)(const uint8_t *packed, int64_t weights, const float *x, int64_t row, float *out);

inline Dots find_dots(int format, int rows) {
  Dots found = nullptr;
  formats::visit(format, [&](auto f) {
    using Format = decltype(f);
    found = rows == 1 ? dots<Format, 1> : rows == 2 ? dots<Format, 2> : dots<Format, 4>;
  });
  return found;
}

// An item is a tile of packed rows.
struct FewRows {
  static constexpr int kMost = 4, kTile = 16;

  static int computed_rows(const Linear &l) { return l.rows <= 2 ? static_cast<int>(l.rows) : kMost; }
  static int64_t width(const Linear &l) { return (l.in_features + kChunk - 1) / kChunk * kChunk; }

  static int64_t prepared_bytes(const Linear &l) { return computed_rows(l) * width(l) * sizeof(float); }
  static int64_t prepare_items(const Linear &l) { return computed_rows(l); }
  static void prepare(const Linear &l, int64_t row) {
    prepare_row(l, row, l.in_features, width(l), static_cast<float *>(l.prepared) + row * width(l));
  }

  static int64_t items(const Linear &l) { return (l.out_features + kTile - 1) / kTile; }
  static int64_t scratch_bytes(const Linear &) { return 0; }
  static void run(const Linear &l, int64_t item, void *) {
    const int rows = computed_rows(l);
    const Dots dots = find_dots(l.format, rows);
    const int64_t first = item * kTile;
    const int count = static_cast<int>(l.out_features - first < kTile ? l.out_features - first : kTile);
    float sums[kMost][kTile];
    for (int i = 0; i < count; ++i) {
      float column[kMost];
      dots(l.at(first + i, 0), l.in_features, static_cast<const float *>(l.prepared), width(l), column);
      for (int r = 0; r < rows; ++r) sums[r][i] = column[r];
    }
    for (int r = 0; r < l.rows; ++r) store_result(l, sums[r], r, l.out_features, first, count);
  }
};

}  // namespace
}  // namespace rocforge::cpu::ROCFORGE_CPU_ISA
