// How a row of head_dim elements is cut into items that one thread works on: the element pairs that rotate first, then
// the elements behind them, 2 * width elements an item. The order in which a row's squares are summed follows from it,
// so that every device computes the same bits. Device code includes gpu.h first, which supplies ROCFORGE_HD.
#pragma once

#include <cstdint>
#ifndef ROCFORGE_HD
  #include "formats/host.h"
#endif

namespace rocforge {

struct RowItems {
  int head_dim;
  int pairs;         // that rotate
  bool interleaved;  // a pair is two neighbours, otherwise elements i and i + pairs
  int width;         // elements in 16 bytes

  ROCFORGE_HD int rotated() const { return (pairs + width - 1) / width; }  // items that consist of pairs
  ROCFORGE_HD int count() const { return rotated() + (head_dim - 2 * pairs + 2 * width - 1) / (2 * width); }

  // The element at entry e (0 .. 2 * width) of an item, -1 where its pairs or the row have ended. Entries e and
  // e + width of an item are a pair, or 2 e and 2 e + 1 where pairs are interleaved.
  ROCFORGE_HD int element(int item, int e) const {
    if (item >= rotated() || interleaved) {
      const int first = item < rotated() ? 2 * width * item : 2 * pairs + 2 * width * (item - rotated());
      return first + e < (item < rotated() ? 2 * pairs : head_dim) ? first + e : -1;
    }
    const int pair = width * item + e % width;
    return pair >= pairs ? -1 : e < width ? pair : pairs + pair;
  }

  // Threads that share a row, a power of two: thread t has items t, t + lanes(), ...
  ROCFORGE_HD int lanes() const {
    int lanes = 1;
    while (lanes < 32 && lanes < count()) lanes *= 2;
    return lanes;
  }
};

}  // namespace rocforge
