// What one wave does for linear: 16 packed rows times a few columns (rows of the input), a piece of weights at a time.
//
// Levels go through the matrix cores as they are; the float32 sums of each 16 or 32 weights are then multiplied by
// their scale, so that no weight is ever rounded.
#pragma once

#include "hip/linear_layout.h"
#include "hip/linear_stage.h"

namespace rocforge::gpu {

// Formats with levels outside of -64 .. 63.
template <class F>
inline constexpr bool kWideLevels =
    is_one_of<F>(formats::TypeList<formats::Q8_0, formats::Q8_1, formats::Q8_K, formats::IQ4_NL, formats::IQ4_XS>{});

// 32 weights are two products of 16. Which of the 8 quads slot `slot` of product `m` is: where scales belong to 16
// weights, a product must not mix the two halves; where 8 levels come together, they should stay in their lane.
template <class F> ROCFORGE_DEVICE int quad_at(int m, int slot) {
  return !kBytewise<F> && F::scale_size > 16 ? 2 * slot + m : 4 * m + slot;
}

template <class Element, bool kWide> ROCFORGE_DEVICE auto operand(uint32_t levels) {
  if constexpr (std::is_same_v<Element, float>) {
    Vec<float, 4> values;
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = float_from_int8(levels, i);
    return values;
  } else {
    return level_pairs<Element, kWide>(levels);
  }
}
template <class Element> ROCFORGE_DEVICE auto operand(uint32_t low, uint32_t high) {
  const float values[4] = {
      static_cast<float>(static_cast<int16_t>(low)), static_cast<float>(static_cast<int16_t>(low >> 16)),
      static_cast<float>(static_cast<int16_t>(high)), static_cast<float>(static_cast<int16_t>(high >> 16))};
  if constexpr (std::is_same_v<Element, float>) {
    return bits_as<Vec<float, 4>>(values);
  } else {
    return bits_as<Vec<uint32_t, 2>>(convert<Element>(values));
  }
}

// The levels of four neighbouring weights of a block.
template <class F, class Element> ROCFORGE_DEVICE auto quad_operand(const uint8_t *block, int quad) {
  using Block = typename F::Block;
  const uint8_t *const from = kBytewise<F> ? block + 4 * (quad & 1) : block;
  const bool second = !kBytewise<F> && quad & 1;
  const auto levels = F::levels8(*reinterpret_cast<const Block *>(from), quad >> 1);
  if constexpr (levels.size == 2) {
    return operand<Element, kWideLevels<F>>(second ? levels.words[1] : levels.words[0]);
  } else {
    return operand<Element>(second ? levels.words[2] : levels.words[0], second ? levels.words[3] : levels.words[1]);
  }
}

// kTiles: products side by side.
template <class F, class Input, int kTiles> class RowsProduct {
  using L = LinearLayout<Input, kArch>;
  using Element = typename L::Element;
  // A float32 input is three bfloat16 to the matrix cores.
  static constexpr int kParts = std::is_same_v<Element, bf16> && std::is_same_v<Input, float> ? 3 : 1;
  static constexpr bool kScaleOf16 = F::scale_size == 16;

 public:
  static constexpr int kColumns = kTiles * L::kColumns;
  static constexpr int kBlocks = kPieceWeights / 32;

  // The columns' 32 values that meet 32 weights.
  struct Columns {
    typename L::Columns x[kTiles][2][kParts];
  };

  // `input`: the first of `count` columns, which are `stride` values apart; the others repeat the last.
  ROCFORGE_DEVICE RowsProduct(const Input *input, int64_t stride, int count) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int c = 0; c < L::kLaneColumns; ++c) {
        const int column = t * L::kColumns + L::column(lane_id(), c);
        inputs_[t][c] = input + (column < count ? column : count - 1) * stride;
      }
    }
  }

  // From value k on, a multiple of 32.
  ROCFORGE_DEVICE Columns load_columns(int64_t k) const {
    Columns columns;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int c = 0; c < L::kLaneColumns; ++c) {
#pragma unroll
          for (int j = 0; j < L::kSlots; ++j) {
            const int quad = quad_at<F>(m, L::slot(lane_id(), j));
            set_column(columns.x[t][m], c, j, load<4>(inputs_[t][c] + k + 4 * quad));
          }
        }
      }
    }
    return columns;
  }

  // Adds 32 weights, the b-th of a piece, whose rows begin at `rows`.
  ROCFORGE_DEVICE void add(const uint8_t *const (&rows)[L::kRows], int b, const Columns &columns) {
    using Block = typename F::Block;
    const int offset = 32 * b / F::block_size * static_cast<int>(sizeof(Block)), first = 32 * b % F::block_size;
    typename L::Weights weights[2];
    formats::Scale scales[L::kRows][2] = {};
#pragma unroll
    for (int r = 0; r < L::kRows; ++r) {
      const uint8_t *const block = rows[r] + offset;
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int j = 0; j < L::kSlots; ++j) {
          L::set(weights[m], r, j, quad_operand<F, Element>(block, first / 4 + quad_at<F>(m, L::slot(lane_id(), j))));
        }
        if (m == 0 || kScaleOf16) {
          scales[r][m] = F::scale(*reinterpret_cast<const Block *>(block), first / 8 + 2 * m);
          scales[r][m].d *= F::level_unit;
        }
      }
    }
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int m = 0; m < (kScaleOf16 ? 2 : 1); ++m) {
        typename L::Sums products = {}, totals = {};
#pragma unroll
        for (int half = m; half < (kScaleOf16 ? m + 1 : 2); ++half) {
#pragma unroll
          for (int part = kParts - 1; part >= 0; --part) {
            products = L::multiply(weights[half], columns.x[t][half][part], products);
            if constexpr (F::has_offset) totals = L::total(columns.x[t][half][part], totals);
          }
        }
#pragma unroll
        for (int i = 0; i < L::kSums; ++i) {
          const formats::Scale &scale = scales[L::sum_row(i)][m];
          sums_[t][i] = fmaf(scale.d, products[i], sums_[t][i]);
          if constexpr (F::has_offset) sums_[t][i] = fmaf(scale.offset, totals[i], sums_[t][i]);
        }
      }
    }
  }

  // To LDS, [16][kColumns].
  ROCFORGE_DEVICE void store_sums(float *out) {
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
#pragma unroll
      for (int i = 0; i < L::kSums; ++i) {
        const int column = t * L::kColumns + L::sum_column(lane_id(), i);
        const float sum = L::finish(sums_[t][i]);
        // Lanes that share a packed row and a column hold the same sum.
        if (L::kLaneColumns == 1 || lane_id() < 16) out[L::row(lane_id(), L::sum_row(i)) * kColumns + column] = sum;
      }
    }
  }

  static ROCFORGE_DEVICE int row(int r) { return L::row(lane_id(), r); }
  static constexpr int kRows = L::kRows;
  // Registers that the columns of a piece would take, and whether to load them all at once.
  static constexpr bool kPrefetch = kParts == 1 && !std::is_same_v<Element, float> && kBlocks * sizeof(Columns) <= 256;

 private:
  static ROCFORGE_DEVICE void set_column(typename L::Columns (&x)[kParts], int c, int j, const Vec<Input, 4> &values) {
    if constexpr (std::is_same_v<Element, float>) {
      Vec<float, 4> floats;
#pragma unroll
      for (int i = 0; i < 4; ++i) floats[i] = to_float(values[i]);
      L::set_column(x[0], c, j, floats);
    } else if constexpr (kParts == 1) {
      L::set_column(x[0], c, j, bits_as<Vec<uint32_t, 2>>(values));
    } else {
      Vec<uint32_t, 2> parts[3];
      split(values, parts);
#pragma unroll
      for (int p = 0; p < 3; ++p) L::set_column(x[p], c, j, parts[p]);
    }
  }

  const Input *inputs_[kTiles][L::kLaneColumns];
  float sums_[kTiles][L::kSums] = {};
};

}  // namespace rocforge::gpu
