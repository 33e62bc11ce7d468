// How a row of head_dim elements is cut into items, 32 bytes each, that one thread works on: pairs that rotate first,
// then the elements behind them. The order in which a row's squares are summed follows from it, so that every device
// computes the same bits. Device code includes gpu.h first, which supplies ROCFORGE_HD.
#pragma once

#include <cstdint>
#ifndef ROCFORGE_HD
  #include "formats/host.h"
#endif

namespace rocforge {

// Two elements of a row, -1: none.
struct ElementPair {
  int first, second;
};

struct RowItems {
  int head_dim;
  int pairs;         // that rotate
  bool interleaved;  // a pair is two neighbours, otherwise elements i and i + pairs
  int width;         // pairs of an item: elements in 16 bytes

  ROCFORGE_HD int rotated() const { return (pairs + width - 1) / width; }  // items that consist of pairs
  ROCFORGE_HD int count() const { return rotated() + (head_dim - 2 * pairs + 2 * width - 1) / (2 * width); }
  // Pair i (0 .. width) of an item; elements that do not rotate are paired as they lie in memory.
  ROCFORGE_HD ElementPair pair(int item, int i) const {
    const bool rotates = item < rotated();
    if (rotates && !interleaved) {
      const int at = width * item + i;
      return at < pairs ? ElementPair{at, pairs + at} : ElementPair{-1, -1};
    }
    const int start = rotates ? 2 * width * item : 2 * pairs + 2 * width * (item - rotated());
    const int end = rotates ? 2 * pairs : head_dim;
    const int first = start + (interleaved ? 2 * i : i), second = first + (interleaved ? 1 : width);
    return {first < end ? first : -1, second < end ? second : -1};
  }
};

// Host code from here on. Items of a row, as RowItems::count().
inline int row_items(int head_dim, int pairs, int width) {
  return (pairs + width - 1) / width + (head_dim - 2 * pairs + 2 * width - 1) / (2 * width);
}

// How many lanes share a row, a power of two: lane t has items t, t + lanes, ...
inline int row_lanes(int head_dim, int pairs, int width) {
  int lanes = 1;
  while (lanes < 32 && lanes < row_items(head_dim, pairs, width)) lanes *= 2;
  return lanes;
}

}  // namespace rocforge
