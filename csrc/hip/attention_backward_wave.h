// The fixed rows of one wave: scores, their gradients and the sums, all of them in registers.
#pragma once

#include "hip/attention_backward_stream.h"
#include "hip/attention_work.h"
#include "hip/gpu/wave_group.h"

namespace rocforge::gpu {

// sm90 multiplies the rows of four waves at once, straight from LDS and behind their backs: products are under way
// until the functions say that they are done.
template <class T>
using GradientLayout = std::conditional_t<kArch == Arch::sm90, ScoresAlong<Mma<T>, AtomRows>, AttentionLayout<T>>;

// All loops have constant bounds, so that all of it is registers. K: the types and numbers of the kernel.
template <class K> class GradientRows {
 public:
  using T = typename K::T;
  using Layout = typename K::Layout;
  using Sum = typename Layout::Sum;
  static constexpr int kDim = K::kDim, kBlocks = K::kTile.blocks;
  static constexpr int kSlots = kBlocks * Layout::kLaneRows;             // fixed rows a lane holds scores of
  static constexpr int kStreamed = K::kTile.streamed / K::kTile.groups;  // rows of a streamed tile for this wave
  static constexpr int kScoreBlocks = kStreamed / Layout::kKeys;
  static constexpr int kSumBlocks = kDim / Layout::kDims;
  static constexpr int kSumSize = sizeof(Sum) / 4;
  static constexpr int kChunks = kDim / Layout::kStepDims;
  static constexpr bool kFirst = K::kFirst, kSecond = K::kSecond;

  // Fixed row that slot `s` of this lane belongs to; streamed row of its values: a constant plus lane_streamed().
  static ROCFORGE_DEVICE int row(int first_row, int s, int lane = lane_id()) {
    return first_row + s / Layout::kLaneRows * Layout::kRows + Layout::row(lane, s % Layout::kLaneRows);
  }
  static ROCFORGE_DEVICE int lane_streamed() { return Layout::key(lane_id(), 0); }

  ROCFORGE_DEVICE void clear() {
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
#pragma unroll
      for (int n = 0; n < kSumBlocks; ++n) {
        if constexpr (kFirst) first_[m][n] = {};
        if constexpr (kSecond) second_[m][n] = {};
      }
    }
  }

  // Keeps the fixed rows; `chunk`: values d .. d + 7 of a row.
  template <class ReadFirst, class ReadSecond>
  ROCFORGE_DEVICE void load_fixed(int first_row, ReadFirst first, ReadSecond second) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int m = 0; m < kBlocks; ++m) {
        const int row = first_row + m * Layout::kRows, d = c * Layout::kStepDims;
        fixed_[c][m] = Layout::queries(row, d, first);
        if constexpr (kFirst) other_fixed_[c][m] = Layout::queries(row, d, second);
      }
    }
  }

  // Scores, and where they are needed the gradients of weights, with the streamed rows from `from` on.
  ROCFORGE_DEVICE void multiply(const T *fixed, int first_row, const StreamedTiles<T> &tiles, int from) {
    if constexpr (kInGroups) {
      group_products_begin();
      multiply_in_group(scores_[0], fixed, first_row, tiles.first, from);
      if constexpr (kFirst) multiply_in_group(grads_[0], fixed + K::kLds.fixed_tile, first_row, tiles.second, from);
      return;
    }
    // Both products in one loop: a matrix instruction waits for the one before it that adds to the same sum.
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
#pragma unroll
      for (int n = 0; n < kScoreBlocks; ++n) scores_[m][n] = {}, grads_[m][n] = {};
    }
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      if constexpr (kFits) in_order();
      multiply(scores_, fixed, fixed_, first_row, tiles.first + K::Rows::at(from, 0), c);
      if constexpr (kFirst) {
        multiply(grads_, fixed + K::kLds.fixed_tile, other_fixed_, first_row, tiles.second + K::Rows::at(from, 0), c);
      }
    }
  }

  // Waits for the scores; for the gradients of weights, after accumulate_second; for all that is under way.
  ROCFORGE_DEVICE void scores_done() { group_products_done<kFirst>(); }
  ROCFORGE_DEVICE void grads_done() { group_products_done<kSecond>(); }
  ROCFORGE_DEVICE void all_done() { group_products_done<0>(); }

  // change(score, gradient, slot, k) for all of them: the streamed row is k + lane_streamed(), k a constant.
  template <class Change> ROCFORGE_DEVICE void change(Change change) {
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
#pragma unroll
      for (int n = 0; n < kScoreBlocks; ++n) {
#pragma unroll
        for (int i = 0; i < kSumSize; ++i) {
          change(scores_[m][n][i], grads_[m][n][i], m * Layout::kLaneRows + Layout::lane_row(i),
                 n * Layout::kKeys + Layout::key(0, i));
        }
      }
    }
  }

  // Scores have become weights; gradients dS.
  ROCFORGE_DEVICE void accumulate_second(const StreamedTiles<T> &tiles, int from) {
    if constexpr (kSecond) add(second_, scores_, tiles.second_columns, from);
  }
  ROCFORGE_DEVICE void accumulate_first(const StreamedTiles<T> &tiles, int from) {
    if constexpr (kFirst) {
      if constexpr (kFits) fit();
      add(first_, grads_, tiles.first_columns, from);
    }
  }

  // Once, after the last tile.
  ROCFORGE_DEVICE void finish(float scale) {
    if constexpr (kFirst) each(first_, [&](float &x) { x *= scale / per_unit_; });
  }

  // To and from LDS [values][kWave].
  ROCFORGE_DEVICE void save(float *lds) {
    lds += lane_id();
    each_sum([&](float &x) { *lds = x, lds += kWave; });
  }
  ROCFORGE_DEVICE void merge(const float *lds) {
    lds += lane_id();
    each_sum([&](float &x) { x += *lds, lds += kWave; });
  }
  static constexpr int kValues = (kFirst + kSecond) * kBlocks * kSumBlocks * kSumSize;  // of a lane

  // A slot's sums as Out to rows of `dims` values, a multiple of 8.
  template <class Out> ROCFORGE_DEVICE void store_first(int slot, Out *row, int dims) {
    if constexpr (kFirst) store_row(first_, slot, row, dims);
  }
  template <class Out> ROCFORGE_DEVICE void store_second(int slot, Out *row, int dims) {
    if constexpr (kSecond) store_row(second_, slot, row, dims);
  }

 private:
  using Fixed = typename Layout::Queries;
  static constexpr int kKept = K::kTile.fixed_in_lds ? 1 : kChunks;
  // float16's dS has to fit. That takes registers, so that none are left to read operands far ahead.
  static constexpr bool kFits = std::is_same_v<T, f16>;
  static constexpr bool kInGroups = kHasGroupProducts;
  static_assert(!kInGroups || (kBlocks == 1 && K::kTile.waves % 4 == 0), "rows of four waves");

  ROCFORGE_DEVICE void multiply_in_group(Sum (&products)[kScoreBlocks], const T *fixed, int first_row, const T *tile,
                                         int from) {
    if constexpr (kInGroups) {
#pragma unroll
      for (int d = 0; d < kDim; d += Layout::kStepDims) {
        group_multiply<T, 0, kStreamed>(products, along_dims<kDim>(fixed, first_row / 64 * 64, d),
                                        along_dims<kDim>(tile, from, d), d > 0);
      }
      group_products_issued();
    }
  }
  ROCFORGE_DEVICE void add_in_group(Sum (&sums)[kSumBlocks], const Sum (&factors)[kScoreBlocks], const T *tile,
                                    int from) {
    if constexpr (kInGroups) {
      typename Layout::Weight weights[kScoreBlocks / Layout::kWeightBlocks];
#pragma unroll
      for (int n = 0; n < kScoreBlocks; n += Layout::kWeightBlocks) {
        weights[n / Layout::kWeightBlocks] = Layout::weights(&factors[n]);
      }
      group_products_begin();
#pragma unroll
      for (int n = 0; n < kScoreBlocks; n += Layout::kWeightBlocks) {
        const auto words = bits_as<Vec<uint32_t, 4>>(weights[n / Layout::kWeightBlocks]);
        constexpr int kN = kDim < 128 ? kDim : 128;
        const int row = from + n * Layout::kKeys;
        group_multiply<T, 0, kN>(sums, words, along_rows<kDim>(tile, row, 0));
        if constexpr (kDim > kN) {
          group_multiply<T, kN / Layout::kDims, kN>(sums, words, along_rows<kDim>(tile, row, kN));
        }
      }
      group_products_issued();
    }
  }

  ROCFORGE_DEVICE void multiply(Sum (&products)[kBlocks][kScoreBlocks], const T *fixed,
                                const Fixed (&kept)[kKept][kBlocks], int first_row, const T *tile, int c) {
    Fixed q[kBlocks];
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
      if constexpr (K::kTile.fixed_in_lds) {
        q[m] = Layout::template queries_in_lds<kDim>(fixed, first_row + m * Layout::kRows, c * Layout::kStepDims);
      } else {
        q[m] = kept[c][m];
      }
    }
    Layout::template add_scores<kDim>(products, q, tile, c * Layout::kStepDims);
  }

  ROCFORGE_DEVICE void add(Sum (&sums)[kBlocks][kSumBlocks], const Sum (&factors)[kBlocks][kScoreBlocks], const T *tile,
                           int from) {
    if constexpr (kInGroups) return add_in_group(sums[0], factors[0], tile, from);
#pragma unroll
    for (int n = 0; n < kScoreBlocks; n += Layout::kWeightBlocks) {
      typename Layout::Weight weights[kBlocks];
      if constexpr (kFits) in_order();
#pragma unroll
      for (int m = 0; m < kBlocks; ++m) weights[m] = Layout::weights(&factors[m][n]);
      Layout::template add_outputs<kDim, K::kTile.streamed>(sums, weights, tile, from + n * Layout::kKeys);
    }
  }

  // dS of float16 inputs may exceed the largest float16 where no gradient does: it is then counted in larger units, a
  // power of two, as are its sums.
  ROCFORGE_DEVICE void fit() {
    constexpr float kMost = 32768;
    float largest = 0;
    each(grads_, [&](float &x) { largest = fmaxf(largest, fabsf(x)); });
    if (any(largest * per_unit_ > kMost)) {
      largest = reduce(largest, [](float x, float y) { return fmaxf(x, y); });
      const uint32_t rounded_up = bits_as<uint32_t>(largest / kMost) + 0x7fffff;
      const float per_unit = broadcast(1 / bits_as<float>(rounded_up & 0x7f800000), 0);  // a scalar register
      const float shrink = per_unit / per_unit_;
      each(first_, [&](float &x) { x *= shrink; });
      per_unit_ = per_unit;
    }
    each(grads_, [&](float &x) { x *= per_unit_; });
  }

  template <class Out>
  static ROCFORGE_DEVICE void store_row(const Sum (&sums)[kBlocks][kSumBlocks], int slot, Out *row, int dims) {
    constexpr int kRun = Layout::kOutRun, kLaneRowValues = kSumSize / Layout::kLaneRows;
    const int m = slot / Layout::kLaneRows, lane_row = slot % Layout::kLaneRows;
#pragma unroll
    for (int n = 0; n < kSumBlocks; ++n) {
#pragma unroll
      for (int i = 0; i < kLaneRowValues; i += kRun) {
        const int first = lane_row * kLaneRowValues + i, d = n * Layout::kDims + Layout::dim(lane_id(), first);
        if constexpr (kRun == 1) {
          if (d < dims) row[d] = from_float<Out>(sums[m][n][first]);
        } else {
          float values[kRun];
#pragma unroll
          for (int j = 0; j < kRun; ++j) values[j] = sums[m][n][first + j];
          if (d < dims) store(row + d, convert<Out>(values));
        }
      }
    }
  }

  template <int kCount, class Visit> static ROCFORGE_DEVICE void each(Sum (&values)[kBlocks][kCount], Visit visit) {
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
#pragma unroll
      for (int n = 0; n < kCount; ++n) {
#pragma unroll
        for (int i = 0; i < kSumSize; ++i) visit(values[m][n][i]);
      }
    }
  }
  template <class Visit> ROCFORGE_DEVICE void each_sum(Visit visit) {
    if constexpr (kFirst) each(first_, visit);
    if constexpr (kSecond) each(second_, visit);
  }

  Sum scores_[kBlocks][kScoreBlocks], grads_[kBlocks][kScoreBlocks];
  Sum first_[kBlocks][kSumBlocks], second_[kBlocks][kSumBlocks];
  Fixed fixed_[kKept][kBlocks], other_fixed_[kKept][kBlocks];
  float per_unit_ = 1;  // factor of dS and its sums
};

}  // namespace rocforge::gpu
