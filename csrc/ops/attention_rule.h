// Which keys a query row sees: the one definition that forward and backward of every device call.
// Device code includes gpu.h first, which supplies ROCFORGE_HD.
//
//     keys      0 1 2 3 4 5 6 7        8 valid keys, 4 query rows, window 3
//     row 0     . . x x x . . .        causal bottom_right: row i stands at position i + 8 - 4
//     row 1     . . . x x x . .
//     row 2     . . . . x x x .        top_left: at position i
//     row 3     . . . . . x x x
#pragma once

#include <cstdint>
#ifndef ROCFORGE_HD
  #include "formats/host.h"
#endif

namespace rocforge {

enum class Causal { kNone, kTopLeft, kBottomRight };

struct KeyRange {
  int64_t begin, end;
  ROCFORGE_HD bool empty() const { return begin >= end; }
  ROCFORGE_HD bool holds(int64_t key) const { return begin <= key && key < end; }
};

// Of one sequence: a batch row, or one of the sequences packed into it.
struct AttentionRule {
  int64_t queries, keys;  // keys: the valid ones
  int64_t offset;         // position of row 0 among the keys; negative where fewer keys are valid than there are rows
  int64_t window;         // keys a row sees up to its own position, itself included; 0: no window
  bool causal;

  ROCFORGE_HD AttentionRule(int64_t queries, int64_t keys, Causal causal, int64_t window)
      : queries(queries),
        keys(keys),
        offset(causal == Causal::kTopLeft ? 0 : keys - queries),
        window(window),
        causal(causal != Causal::kNone) {}

  ROCFORGE_HD int64_t position(int64_t row) const { return row + offset; }

  // Both ends grow with the row.
  ROCFORGE_HD KeyRange visible(int64_t row) const {
    const int64_t last = position(row);
    const int64_t begin = window > 0 && last >= window ? last - window + 1 : 0;
    const int64_t end = causal && last < keys ? (last < 0 ? 0 : last + 1) : keys;
    return {begin, end};
  }

  // What rows first .. last (inclusive) see together; outside of it nothing needs to be read.
  ROCFORGE_HD KeyRange visible(int64_t first, int64_t last) const { return {visible(first).begin, visible(last).end}; }

  // True where every one of the rows sees every one of the keys: nothing is left to mask there.
  ROCFORGE_HD bool all_visible(int64_t first, int64_t last, KeyRange tile) const {
    return visible(last).begin <= tile.begin && tile.end <= visible(first).end;
  }

  // First row at or after which the tile's keys can be seen, and the first from which they no longer are.
  ROCFORGE_HD int64_t first_row(KeyRange tile) const {
    return partition([&](int64_t row) { return visible(row).end <= tile.begin; });
  }
  ROCFORGE_HD int64_t end_row(KeyRange tile) const {
    return partition([&](int64_t row) { return visible(row).begin < tile.end; });
  }

 private:
  // The first row for which `before` no longer holds.
  template <class Before> ROCFORGE_HD int64_t partition(Before before) const {
    int64_t low = 0, high = queries;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (before(middle)) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

}  // namespace rocforge
