// head_rows.h for rows and angles whose items are whole vectors at multiples of 16 bytes: a lane loads and stores 16
// bytes of first elements and 16 bytes of second ones.
#pragma once

#include "hip/head_rows.h"

namespace rocforge::gpu {

// Two vectors of an item as they are in memory, and their numbers. Pair i is at entries i and i + kWidth<T>, or at 2 i
// and 2 i + 1 where pairs are interleaved.
template <class T, int kHalf> struct RawItem {
  Vec<T, kHalf> first, second;
};
template <class T> using ItemValues = Wide<T>[2 * kWidth<T>];

template <bool kInterleaved> ROCFORGE_DEVICE int first_of(int pair) { return kInterleaved ? 2 * pair : pair; }
template <bool kInterleaved> ROCFORGE_DEVICE int second_of(int pair, int width) {
  return kInterleaved ? 2 * pair + 1 : width + pair;
}

// Where the vectors of an item begin in a row.
template <class T> ROCFORGE_DEVICE ElementPair vectors_of(const RowItems &items, int item) {
  const ElementPair pair = items.pair(item, 0);
  return {pair.first, items.interleaved ? pair.first + kWidth<T> : pair.second};
}

template <int kHalf, class From> ROCFORGE_DEVICE RawItem<From, kHalf> load_raw(const From *row, const ElementPair &at) {
  return {load<kHalf>(row + at.first), load<kHalf>(row + at.second)};
}

template <class W, class From, int kHalf>
ROCFORGE_DEVICE void widen(const RawItem<From, kHalf> &raw, W (&values)[2 * kHalf]) {
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    values[i] = static_cast<W>(Arithmetic<From>::widen(raw.first[i]));
    values[kHalf + i] = static_cast<W>(Arithmetic<From>::widen(raw.second[i]));
  }
}

template <class T>
ROCFORGE_DEVICE void load_numbers(const Numbers &numbers, int64_t offset, const ElementPair &at,
                                  ItemValues<T> &values) {
  if (numbers.is_float) {
    widen(load_raw<kWidth<T>>(static_cast<const float *>(numbers.first) + offset, at), values);
  } else {
    widen(load_raw<kWidth<T>>(static_cast<const T *>(numbers.first) + offset, at), values);
  }
}

template <class T> ROCFORGE_DEVICE void store_item(T *row, const ElementPair &at, const ItemValues<T> &values) {
  Wide<T> first[kWidth<T>], second[kWidth<T>];
#pragma unroll
  for (int i = 0; i < kWidth<T>; ++i) first[i] = values[i], second[i] = values[kWidth<T> + i];
  store(row + at.first, convert<T>(first));
  store(row + at.second, convert<T>(second));
}

// Cosines and sines of the pairs of one item.
template <class T> struct ItemAngles {
  Wide<T> cos[kWidth<T>], sin[kWidth<T>];
};

template <class T, class From>
ROCFORGE_DEVICE void load_angle_vector(const AngleTable &table, int64_t at, Wide<T> (&values)[kWidth<T>]) {
  const Vec<From, kWidth<T>> numbers = load<kWidth<T>>(static_cast<const From *>(table.first) + at);
#pragma unroll
  for (int i = 0; i < kWidth<T>; ++i) values[i] = static_cast<Wide<T>>(Arithmetic<From>::widen(numbers[i]));
}

template <class T>
ROCFORGE_DEVICE void load_angles(const AngleTable &table, int64_t offset, int pair, Wide<T> (&values)[kWidth<T>]) {
  if (offset < 0) {
#pragma unroll
    for (int i = 0; i < kWidth<T>; ++i) values[i] = __builtin_nanf("");
  } else if (table.is_float) {
    load_angle_vector<T, float>(table, offset + pair, values);
  } else {
    load_angle_vector<T, T>(table, offset + pair, values);
  }
}

template <class T>
ROCFORGE_DEVICE ItemAngles<T> item_angles(const Angles &angles, const AngleOffsets &offsets, int item) {
  ItemAngles<T> out;
  load_angles<T>(angles.cos, offsets.cos, item * kWidth<T>, out.cos);
  load_angles<T>(angles.sin, offsets.sin, item * kWidth<T>, out.sin);
  return out;
}

template <class T, bool kInterleaved>
ROCFORGE_DEVICE void rotate_item(const ItemAngles<T> &angles, ItemValues<T> &values) {
#pragma unroll
  for (int i = 0; i < kWidth<T>; ++i) {
    Wide<T> &first = values[first_of<kInterleaved>(i)], &second = values[second_of<kInterleaved>(i, kWidth<T>)];
    const Wide<T> a = first, b = second;
    first = a * angles.cos[i] - b * angles.sin[i];
    second = b * angles.cos[i] + a * angles.sin[i];
  }
}

// No bias, no norm.
template <class T, bool kInterleaved>
ROCFORGE_DEVICE void rotate_vectors(const HeadRows<T> &rows, int lane, int lanes) {
  for (int item = lane; item < rows.items.count(); item += lanes) {
    const bool rotates = item < rows.items.rotated();
    const ElementPair at = vectors_of<T>(rows.items, item);
    ItemAngles<T> angles;
    if (rotates) angles = item_angles<T>(rows.angles, rows.offsets, item);
    const T *x = rows.x;
    T *out = rows.out;
#pragma unroll 1
    for (int head = 0; head < rows.heads; ++head, x += rows.x_step, out += rows.out_step) {
      ItemValues<T> values;
      widen(load_raw<kWidth<T>>(x, at), values);
      if (rotates && !rows.offsets.shared()) {
        angles = item_angles<T>(rows.angles, rows.offsets.of_head(head), item);
      }
      if (rotates) rotate_item<T, kInterleaved>(angles, values);
      store_item(out, at, values);
    }
  }
}

// With bias or norm, where a lane has one item of a row at most. Every lane of the wave calls it.
template <class T, bool kInterleaved>
ROCFORGE_DEVICE void process_vectors(const HeadRows<T> &rows, int lane, int lanes) {
  const bool works = lane < rows.items.count(), rotates = lane < rows.items.rotated();
  const ElementPair at = works ? vectors_of<T>(rows.items, lane) : ElementPair{0, 0};
  ItemAngles<T> angles;
  if (rotates) angles = item_angles<T>(rows.angles, rows.offsets, lane);
  const auto load_head = [&](int head) {
    return works && head < rows.heads ? load_raw<kWidth<T>>(rows.x + head * rows.x_step, at) : RawItem<T, kWidth<T>>{};
  };
  auto next = load_head(0);
#pragma unroll 1
  for (int head = 0; head < rows.most_heads; ++head) {
    ItemValues<T> values, numbers;
    const bool exists = works && head < rows.heads;
    const auto raw = next;
    next = load_head(head + 1);  // under way while this head's squares are summed
    if (exists && rows.bias.first) load_numbers<T>(rows.bias, rows.bias_at + head * rows.bias_step, at, numbers);
    widen(raw, values);
    if (exists && rows.bias.first) {
#pragma unroll
      for (int i = 0; i < 2 * kWidth<T>; ++i) values[i] += numbers[i];
    }
    if (rows.norm.first) {
      if (exists) load_numbers<T>(rows.norm, 0, at, numbers);
      Wide<T> sum = 0;
#pragma unroll
      for (int i = 0; i < kWidth<T>; ++i) {
        const Wide<T> a = values[first_of<kInterleaved>(i)], b = values[second_of<kInterleaved>(i, kWidth<T>)];
        sum += a * a;
        sum += b * b;
      }
      const Wide<T> scale = norm_scale(group_sum(sum, lanes), rows.items.head_dim, rows.eps);
#pragma unroll
      for (int i = 0; i < 2 * kWidth<T>; ++i) values[i] = values[i] * scale * numbers[i];
    }
    if (!exists) continue;
    if (rotates) rotate_item<T, kInterleaved>(angles, values);
    store_item(rows.out + head * rows.out_step, at, values);
  }
}

}  // namespace rocforge::gpu
