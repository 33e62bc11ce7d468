// The rows of one wave: their scores, weights, outputs and softmax state, all of them in registers.
#pragma once

#include "hip/attention_layout.h"
#include "hip/attention_work.h"

namespace rocforge::gpu {

// A rescaling of the accumulators waits until the weights have grown by 2^kLazy: they keep their precision, being
// floats, and stay far from the largest float16.
inline constexpr float kLazy = 8;

// A wave's rows: their accumulators and softmax state. All loops have constant bounds, so that all of it is registers.
template <class T, int kDim, int kRowBlocks, int kTileKeys, bool kQueryInLds> class WaveRows {
 public:
  using Layout = AttentionLayout<T>;
  using Sum = typename Layout::Sum;
  static constexpr int kSlots = kRowBlocks * Layout::kLaneRows;  // rows a lane holds scores of
  static constexpr int kScoreBlocks = kTileKeys / Layout::kKeys;
  static constexpr int kOutBlocks = kDim / Layout::kDims;
  static constexpr int kSumSize = sizeof(Sum) / 4;

  // Row of the tile that slot `s` of this lane belongs to. Slot s is lane row s % kLaneRows of block s / kLaneRows.
  static ROCFORGE_DEVICE int row(int first_row, int s) {
    return first_row + s / Layout::kLaneRows * Layout::kRows + Layout::row(lane_id(), s % Layout::kLaneRows);
  }

  ROCFORGE_DEVICE void clear() {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) peak_[s] = -kInfinity, sum_[s] = 0;
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
      for (int n = 0; n < kOutBlocks; ++n) outs_[m][n] = {};
    }
  }

  ROCFORGE_DEVICE void score(const T *queries, int first_row, const T *keys) {
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
      for (int n = 0; n < kScoreBlocks; ++n) scores_[m][n] = {};
    }
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      typename Layout::Queries q[kRowBlocks];
#pragma unroll
      for (int m = 0; m < kRowBlocks; ++m) {
        if constexpr (kQueryInLds) {
          q[m] = Layout::template queries_in_lds<kDim>(queries, first_row + m * Layout::kRows, c * Layout::kStepDims);
        } else {
          q[m] = queries_[c][m];
        }
      }
      Layout::template add_scores<kDim>(scores_, q, keys, c * Layout::kStepDims);
    }
  }

  // Replaces every score by change(score, slot, k), where k + lane_key() is the key in the tile: k is a constant.
  template <class Change> ROCFORGE_DEVICE void change_scores(Change change) {
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
      for (int n = 0; n < kScoreBlocks; ++n) {
#pragma unroll
        for (int i = 0; i < kSumSize; ++i) {
          float &x = scores_[m][n][i];
          x = change(x, m * Layout::kLaneRows + Layout::lane_row(i), n * Layout::kKeys + Layout::key(0, i));
        }
      }
    }
  }

  static ROCFORGE_DEVICE int lane_key() { return Layout::key(lane_id(), 0); }

  // Takes the scores into the rows' peaks, and rescales what was summed up when one has grown enough.
  ROCFORGE_DEVICE void raise_peaks(float exp_scale) {
    float best[kSlots];
#pragma unroll
    for (int s = 0; s < kSlots; ++s) best[s] = peak_[s];
    each_score([&](float &x, int s) { best[s] = fmaxf(best[s], x); });
    // All rows before one test: the exchanges between lanes wait together, and what follows is one stretch of code.
    bool grew = false;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      best[s] = Layout::over_keys(best[s], [](float a, float b) { return fmaxf(a, b); });
      grew |= (best[s] - peak_[s]) * exp_scale > kLazy;
    }
    if (!any(grew)) return;
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      rescale(s, best[s] == -kInfinity ? 1 : fast_exp2((peak_[s] - best[s]) * exp_scale));
      peak_[s] = best[s];
    }
  }

  // Scores less their row's peak, scaled: where a multiply-add in accumulate() might overflow.
  ROCFORGE_DEVICE void relate_to_peaks(float exp_scale) {
    each_score([&](float &x, int s) { x = (x - base(s)) * exp_scale; });
  }

  // Scores become weights and these meet the values, a few keys after the other: exponentials beside matrix products.
  // `related`: the scores are already what their weights are the exponentials of.
  ROCFORGE_DEVICE void accumulate(const T *values, float exp_scale, bool related) {
    const float scale = related ? 1 : exp_scale;
    float scaled_base[kSlots];
#pragma unroll
    for (int s = 0; s < kSlots; ++s) scaled_base[s] = related ? 0 : base(s) * exp_scale;
    constexpr int kTogether = Layout::kWeightBlocks;
#pragma unroll
    for (int n = 0; n < kScoreBlocks; n += kTogether) {
      typename Layout::Weight weights[kRowBlocks];
#pragma unroll
      for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
        for (int j = 0; j < kTogether * kSumSize; ++j) {
          const int i = j % kSumSize, s = m * Layout::kLaneRows + Layout::lane_row(i);
          float &x = scores_[m][n + j / kSumSize][i];
          x = fast_exp2(fmaf(x, scale, -scaled_base[s]));
          sum_[s] += x;
        }
        weights[m] = Layout::weights(&scores_[m][n]);
      }
      Layout::template add_outputs<kDim, kTileKeys>(outs_, weights, values, n * Layout::kKeys);
    }
  }

  // The sums of all lanes of a row.
  ROCFORGE_DEVICE void join_lanes() {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) sum_[s] = Layout::over_keys(sum_[s], [](float a, float b) { return a + b; });
  }

  // A block of rows to floats [kRows][stride] in LDS.
  ROCFORGE_DEVICE void put_block(int m, float *lds, int stride) const {
#pragma unroll
    for (int r = 0; r < Layout::kLaneRows; ++r) {
      store_row(m * Layout::kLaneRows + r, lds + Layout::row(lane_id(), r) * stride, kDim);
    }
  }

  ROCFORGE_DEVICE void rescale(int slot, float factor) {
    sum_[slot] *= factor;
    const int m = slot / Layout::kLaneRows, lane_row = slot % Layout::kLaneRows;
#pragma unroll
    for (int n = 0; n < kOutBlocks; ++n) {
#pragma unroll
      for (int i = 0; i < kSumSize; ++i) {
        if (Layout::lane_row(i) == lane_row) outs_[m][n][i] *= factor;
      }
    }
  }

  // Stores a slot's outputs as Out to its row of `dims` values, a multiple of 8.
  template <class Out> ROCFORGE_DEVICE void store_row(int slot, Out *row, int dims) const {
    constexpr int kRun = Layout::kOutRun, kLaneRowValues = kSumSize / Layout::kLaneRows;
    const int m = slot / Layout::kLaneRows, lane_row = slot % Layout::kLaneRows;
#pragma unroll
    for (int n = 0; n < kOutBlocks; ++n) {
#pragma unroll
      for (int i = 0; i < kLaneRowValues; i += kRun) {
        const int first = lane_row * kLaneRowValues + i, d = n * Layout::kDims + Layout::dim(lane_id(), first);
        if constexpr (kRun == 1) {
          if (d < dims) row[d] = from_float<Out>(outs_[m][n][first]);
        } else {
          float values[kRun];
#pragma unroll
          for (int j = 0; j < kRun; ++j) values[j] = outs_[m][n][first + j];
          if (d < dims) store(row + d, convert<Out>(values));
        }
      }
    }
  }

  ROCFORGE_DEVICE float peak(int s) const { return peak_[s]; }
  ROCFORGE_DEVICE float sum(int s) const { return sum_[s]; }

  // For kernels that keep them in registers.
  ROCFORGE_DEVICE void load_queries_from_lds(const T *tile) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int m = 0; m < kRowBlocks; ++m) {
        queries_[c][m] = Layout::template queries_in_lds<kDim>(tile, m * Layout::kRows, c * Layout::kStepDims);
      }
    }
  }
  template <class ReadChunk> ROCFORGE_DEVICE void load_queries(int first_row, ReadChunk chunk) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int m = 0; m < kRowBlocks; ++m) {
        queries_[c][m] = Layout::queries(first_row + m * Layout::kRows, c * Layout::kStepDims, chunk);
      }
    }
  }

 private:
  static constexpr int kChunks = kDim / Layout::kStepDims;

  ROCFORGE_DEVICE float base(int s) const { return peak_[s] == -kInfinity ? 0 : peak_[s]; }

  // visit(score, slot)
  template <class Visit> ROCFORGE_DEVICE void each_score(Visit visit) {
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
      for (int n = 0; n < kScoreBlocks; ++n) {
#pragma unroll
        for (int i = 0; i < kSumSize; ++i) visit(scores_[m][n][i], m * Layout::kLaneRows + Layout::lane_row(i));
      }
    }
  }

  Sum outs_[kRowBlocks][kOutBlocks];
  Sum scores_[kRowBlocks][kScoreBlocks];
  typename Layout::Queries queries_[kQueryInLds ? 1 : kChunks][kRowBlocks];
  float peak_[kSlots];  // the largest score so far, or a little less; the same in all lanes of a row
  float sum_[kSlots];   // of this lane's weights
};

}  // namespace rocforge::gpu
