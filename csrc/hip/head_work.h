// How rows of head_dim elements are handed to groups of lanes, as the host describes it. No torch, no vendor.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "hip/divider.h"

namespace rocforge::gpu {

enum class RowType { kDouble, kFloat, kHalf, kBFloat16 };

inline constexpr int kHeadThreads = 128;  // of a workgroup

// Numbers side by side, float32 or of the rows' type.
struct Numbers {
  const void *first;  // nullptr: none
  bool is_float;
};

// A table of cosines or sines.
struct AngleTable {
  const void *first;
  int64_t step;   // from one pair's angle to the next
  bool is_float;  // otherwise of the rows' type
};
struct Angles {
  AngleTable cos, sin;
};

// Which group of lanes works on which heads of which token: heads block, block + blocks, ...
struct HeadGrid {
  uint32_t units;        // groups that have work
  int lane_bits;         // a group is 2^lane_bits lanes
  int blocks;            // groups of a token
  bool tokens_inside;    // neighbouring groups take neighbouring tokens, otherwise neighbouring heads
  Divider inner, outer;  // a batch row's tokens and blocks, or the other way round

  unsigned workgroups() const {
    const unsigned groups = kHeadThreads >> lane_bits;
    return (units + groups - 1) / groups;
  }
};

// A group takes up to four heads where that leaves every compute unit enough to do: it reads their angles once.
// std::runtime_error when one launch has no room for the groups.
inline HeadGrid head_grid(int64_t batch, int64_t length, int64_t heads, int lanes, int compute_units,
                          bool tokens_inside) {
  constexpr int64_t kMostUnits = INT32_MAX, kEnoughThreads = 1024, kMostHeads = 4;
  const int64_t tokens = batch * length, threads = tokens * heads * lanes;
  const int64_t heads_of_group = std::clamp<int64_t>(threads / (kEnoughThreads * compute_units), 1, kMostHeads);
  const int64_t blocks = (heads + heads_of_group - 1) / heads_of_group;
  if (tokens > kMostUnits / blocks) {
    throw std::runtime_error(std::to_string(tokens) + " tokens of " + std::to_string(heads) +
                             " heads are more than one launch takes");
  }
  int lane_bits = 0;
  while (1 << lane_bits < lanes) ++lane_bits;
  return {static_cast<uint32_t>(tokens * blocks),
          lane_bits,
          static_cast<int>(blocks),
          tokens_inside,
          make_divider(tokens_inside ? length : blocks),
          make_divider(tokens_inside ? blocks : length)};
}

}  // namespace rocforge::gpu
