// The fixed rows of one wave: scores, their gradients and the sums, all of them in registers.
#pragma once

#include "hip/attention_backward_stream.h"
#include "hip/attention_work.h"

namespace rocforge::gpu {

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
  static ROCFORGE_DEVICE int row(int first_row, int s) {
    return first_row + s / Layout::kLaneRows * Layout::kRows + Layout::row(lane_id(), s % Layout::kLaneRows);
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

  // Scores, and where they are needed the gradients of weights, with the streamed rows from `from` on. Both products in
  // one loop: a matrix instruction waits for the one before it that adds to the same sum.
  ROCFORGE_DEVICE void multiply(const T *fixed, int first_row, const StreamedTiles<T> &tiles, int from) {
#pragma unroll
    for (int m = 0; m < kBlocks; ++m) {
#pragma unroll
      for (int n = 0; n < kScoreBlocks; ++n) scores_[m][n] = {}, grads_[m][n] = {};
    }
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      multiply(scores_, fixed, fixed_, first_row, tiles.first + K::Rows::at(from, 0), c);
      if constexpr (kFirst) {
        multiply(grads_, fixed + K::kLds.fixed_tile, other_fixed_, first_row, tiles.second + K::Rows::at(from, 0), c);
      }
    }
  }

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

  // Scores have become weights, gradients dS.
  ROCFORGE_DEVICE void accumulate(const StreamedTiles<T> &tiles, int from) {
    if constexpr (kSecond) add(second_, scores_, tiles.second_columns, from);
    if constexpr (kFirst) {
      if constexpr (std::is_same_v<T, f16>) fit();
      add(first_, grads_, tiles.first_columns, from);
    }
  }

  // Once, after the last tile.
  ROCFORGE_DEVICE void finish(float scale) {
    if constexpr (kFirst) each(first_, [&](float &x) { x *= scale * unit_; });
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
#pragma unroll
    for (int n = 0; n < kScoreBlocks; n += Layout::kWeightBlocks) {
      typename Layout::Weight weights[kBlocks];
#pragma unroll
      for (int m = 0; m < kBlocks; ++m) weights[m] = Layout::weights(&factors[m][n]);
      Layout::template add_outputs<kDim, K::kTile.streamed>(sums, weights, tile, from + n * Layout::kKeys);
    }
  }

  // dS of float16 inputs may exceed the largest float16 where no gradient does: it is then counted in larger units, as
  // are its sums.
  ROCFORGE_DEVICE void fit() {
    constexpr float kMost = 32768;
    float largest = 0;
    each(grads_, [&](float &x) { largest = fmaxf(largest, fabsf(x)); });
    if (any(largest > kMost * unit_)) {
      largest = reduce(largest, [](float x, float y) { return fmaxf(x, y); });
      float shrink = 1;
      while (largest > kMost * unit_) unit_ *= 2, shrink /= 2;
      each(first_, [&](float &x) { x *= shrink; });
    }
    if (unit_ != 1) each(grads_, [&](float &x) { x /= unit_; });
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
  float unit_ = 1;  // of dS and its sums
};

}  // namespace rocforge::gpu
