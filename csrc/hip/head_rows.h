// Rows of head_dim elements, one for each head of a token, on their way through bias, norm and rotation: what
// rotary_embedding and qkv_rope_cache have in common, here element by element for any shape and alignment;
// head_vectors.h is the fast way. The lanes of a group share a row as csrc/ops/row_items.h cuts it.
#pragma once

// The kernel file includes hip/gpu.h before.
#include "hip/divider.h"
#include "hip/head_work.h"
#include "ops/row_items.h"

namespace rocforge::gpu {

// The type of the arithmetic, and conversions to and from it.
template <class T> struct Arithmetic {
  using type = float;
  static ROCFORGE_DEVICE float widen(T value) { return to_float(value); }
  static ROCFORGE_DEVICE T narrow(float value) { return from_float<T>(value); }
};
template <> struct Arithmetic<double> {
  using type = double;
  static ROCFORGE_DEVICE double widen(double value) { return value; }
  static ROCFORGE_DEVICE double narrow(double value) { return value; }
};
template <class T> using Wide = typename Arithmetic<T>::type;
template <class T> inline constexpr int kWidth = 16 / static_cast<int>(sizeof(T));

ROCFORGE_DEVICE float square_root(float value) { return sqrtf(value); }
ROCFORGE_DEVICE double square_root(double value) { return sqrt(value); }

// What a group of lanes works on: heads `block`, `block + blocks`, ... of a token.
struct HeadUnit {
  int lane, lanes;
  int64_t batch, token;
  int block;
  bool exists;  // not past the end
};

ROCFORGE_DEVICE HeadUnit unit_of_group(const HeadGrid &grid, uint32_t workgroup) {
  const uint32_t group = workgroup * (kHeadThreads >> grid.lane_bits) + (threadIdx.x >> grid.lane_bits);
  const bool exists = group < grid.units;
  const uint32_t unit = exists ? group : 0;
  const uint32_t rest = divide(unit, grid.inner), in = unit - rest * grid.inner.divisor;
  const uint32_t batch = divide(rest, grid.outer), out = rest - batch * grid.outer.divisor;
  const int lanes = 1 << grid.lane_bits;
  return {static_cast<int>(threadIdx.x) & (lanes - 1),     lanes, batch, grid.tokens_inside ? in : out,
          static_cast<int>(grid.tokens_inside ? out : in), exists};
}

// Where the angles of a token's first head begin, and from head to head. Negative: nowhere, they are NaN.
struct AngleOffsets {
  int64_t cos, sin, cos_step, sin_step;
  ROCFORGE_DEVICE bool shared() const { return cos_step == 0 && sin_step == 0; }
  ROCFORGE_DEVICE AngleOffsets of_head(int64_t head) const {
    return {cos + head * cos_step, sin + head * sin_step, 0, 0};  // where there are none, steps are 0
  }
};

// The heads of a unit.
template <class T> struct HeadRows {
  const T *x;
  T *out;
  int64_t x_step, out_step;  // from head to head
  int64_t element_step;      // of x
  int heads;                 // that this group works on, 0 for none
  int most_heads;            // that any group of the wave works on
  RowItems items;
  Angles angles;
  AngleOffsets offsets;
  Numbers bias, norm;          // norm: the same for all heads
  int64_t bias_at, bias_step;  // of the first head, and from head to head
  Wide<T> eps;
};

template <class T> ROCFORGE_DEVICE Wide<T> number(const Numbers &numbers, int64_t i) {
  if (numbers.is_float) return static_cast<const float *>(numbers.first)[i];
  return Arithmetic<T>::widen(static_cast<const T *>(numbers.first)[i]);
}

template <class T> ROCFORGE_DEVICE Wide<T> angle(const AngleTable &table, int64_t offset, int pair) {
  if (offset < 0) return __builtin_nanf("");
  return number<T>({table.first, table.is_float}, offset + pair * table.step);
}

// The sum over the lanes of a group, the same in all of them. Every lane of the wave calls it.
template <class W> ROCFORGE_DEVICE W group_sum(W sum, int lanes ROCFORGE_SITE) {
  for (int mask = lanes / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask ROCFORGE_PASS_SITE);
  return sum;
}

// 1 / root of the mean square.
template <class W> ROCFORGE_DEVICE W norm_scale(W sum_of_squares, int head_dim, W eps) {
  return 1 / square_root(sum_of_squares / static_cast<W>(head_dim) + eps);
}

template <class T> ROCFORGE_DEVICE Wide<T> element(const HeadRows<T> &rows, int head, int i) {
  if (i < 0) return 0;
  const Wide<T> value = Arithmetic<T>::widen(rows.x[head * rows.x_step + i * rows.element_step]);
  return rows.bias.first ? value + number<T>(rows.bias, rows.bias_at + head * rows.bias_step + i) : value;
}

// Any shape and alignment, one pair of elements after another. Every lane of the wave calls it.
template <class T> ROCFORGE_DEVICE void process_elements(const HeadRows<T> &rows, int lane, int lanes) {
  const RowItems &items = rows.items;
#pragma unroll 1
  for (int head = 0; head < rows.most_heads; ++head) {
    const int count = head < rows.heads ? items.count() : 0;
    Wide<T> scale = 1;
    if (rows.norm.first) {
      Wide<T> sum = 0;
      for (int item = lane; item < count; item += lanes) {
#pragma unroll 1
        for (int i = 0; i < kWidth<T>; ++i) {
          const ElementPair pair = items.pair(item, i);
          const Wide<T> a = element(rows, head, pair.first), b = element(rows, head, pair.second);
          sum += a * a;
          sum += b * b;
        }
      }
      scale = norm_scale(group_sum(sum, lanes), items.head_dim, rows.eps);
    }
    const AngleOffsets offsets = rows.offsets.of_head(head);
    T *const out = rows.out + head * rows.out_step;
    for (int item = lane; item < count; item += lanes) {
#pragma unroll 1
      for (int i = 0; i < kWidth<T>; ++i) {
        const ElementPair pair = items.pair(item, i);
        if (pair.first < 0) break;
        const int second = pair.second < 0 ? pair.first : pair.second;  // the last element of an odd row
        Wide<T> a = element(rows, head, pair.first), b = element(rows, head, second);
        if (rows.norm.first) {
          a = a * scale * number<T>(rows.norm, pair.first);
          b = b * scale * number<T>(rows.norm, second);
        }
        if (item < items.rotated()) {
          const Wide<T> c = angle<T>(rows.angles.cos, offsets.cos, item * kWidth<T> + i);
          const Wide<T> s = angle<T>(rows.angles.sin, offsets.sin, item * kWidth<T> + i);
          const Wide<T> rotated = a * c - b * s;
          b = b * c + a * s;
          a = rotated;
        }
        out[pair.first] = Arithmetic<T>::narrow(a);
        if (pair.second >= 0) out[pair.second] = Arithmetic<T>::narrow(b);
      }
    }
  }
}

}  // namespace rocforge::gpu
