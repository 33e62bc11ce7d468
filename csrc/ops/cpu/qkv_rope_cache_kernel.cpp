#include "ops/qkv_rope_cache.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <cmath>
#include <type_traits>
#include <vector>

#include "ops/row_items.h"

namespace rocforge::cpu {
namespace {

// The type of the arithmetic.
template <class T> using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Numbers of type T or float32, `step` apart.
template <class T> struct Numbers {
  const void *first = nullptr;
  bool is_float = false;
  int64_t step = 1;

  Numbers() = default;
  Numbers(const at::Tensor &t, int64_t offset, int64_t step = 1) : step(step) {
    if (!t.defined()) return;
    is_float = t.scalar_type() == at::kFloat;
    first = static_cast<const char *>(t.const_data_ptr()) + offset * t.element_size();
  }
  explicit operator bool() const { return first != nullptr; }
  Wide<T> operator[](int64_t i) const {
    if (is_float) return static_cast<const float *>(first)[i * step];
    return static_cast<const T *>(first)[i * step];
  }
};

int64_t position(const Positions &positions, int64_t b, int64_t l) {
  const int64_t at = b * positions.values.stride(0) + l * positions.values.stride(1);
  const int64_t given = positions.values.scalar_type() == at::kInt ? positions.values.const_data_ptr<int32_t>()[at]
                                                                   : positions.values.const_data_ptr<int64_t>()[at];
  return given + l * positions.step;
}

// Where token l of row b goes in the cache; -1: nowhere. In a ring a token gives way to the later one on its slot.
int64_t slot(const Positions &positions, int64_t b, int64_t l, int64_t capacity, bool ring) {
  const int64_t at = position(positions, b, l);
  if (!ring) return at < capacity ? at : -1;
  const int64_t length = positions.values.size(1);
  const bool overwritten = l + capacity < length && position(positions, b, l + capacity) == at + capacity;
  return at < 0 || overwritten || capacity == 0 ? -1 : at % capacity;
}

// The sum in the order of row_items.h: each lane's items one after another, then the lanes as a tree.
template <class W> W sum_of_squares(const std::vector<W> &row, const RowItems &items) {
  W sums[32] = {};
  const int lanes = row_lanes(items.head_dim, items.pairs, items.width);
  for (int item = 0; item < items.count(); ++item) {
    for (int i = 0; i < items.width; ++i) {
      const ElementPair pair = items.pair(item, i);
      if (pair.first >= 0) sums[item % lanes] += row[pair.first] * row[pair.first];
      if (pair.second >= 0) sums[item % lanes] += row[pair.second] * row[pair.second];
    }
  }
  for (int half = lanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

// A row on its way from the projection to the query or a cache.
template <class T> class Row {
 public:
  Row(const T *x, int64_t head_dim, const Numbers<T> &bias) : row_(head_dim) {
    for (int64_t i = 0; i < head_dim; ++i) row_[i] = bias ? static_cast<W>(x[i]) + bias[i] : static_cast<W>(x[i]);
  }
  void normalise(const Numbers<T> &weight, double eps, const RowItems &items) {
    const W mean = sum_of_squares(row_, items) / static_cast<W>(row_.size());
    const W scale = 1 / std::sqrt(mean + static_cast<W>(eps));
    for (size_t i = 0; i < row_.size(); ++i) row_[i] = row_[i] * scale * weight[i];
  }
  void rotate(const Numbers<T> &cos, const Numbers<T> &sin, int64_t pairs, bool interleaved) {
    for (int64_t pair = 0; pair < pairs; ++pair) {
      W &first = row_[interleaved ? 2 * pair : pair], &second = row_[interleaved ? 2 * pair + 1 : pairs + pair];
      const W a = first, b = second, c = cos[pair], s = sin[pair];
      first = a * c - b * s;
      second = b * c + a * s;
    }
  }
  void store(T *out) const {
    for (size_t i = 0; i < row_.size(); ++i) out[i] = static_cast<T>(row_[i]);
  }

 private:
  using W = Wide<T>;
  std::vector<W> row_;
};

template <class T>
void run(const QkvArgs &args, const QkvOptions &o, at::Tensor &query, const at::Tensor &key_cache,
         const at::Tensor &value_cache) {
  const int64_t length = args.query.size(1), query_heads = args.query.size(2), kv_heads = args.key.size(2);
  const int64_t heads = query_heads + 2 * kv_heads, head_dim = args.query.size(3);
  const RowItems items{static_cast<int>(head_dim), static_cast<int>(args.pairs), o.interleaved, 16 / sizeof(T)};
  const auto rotate = [&](Row<T> &row, int64_t b, int64_t l) {
    const bool table = args.angle.values.defined();
    const int64_t at = table ? position(args.angle, b, l) : 0;
    TORCH_CHECK_INDEX(!table || (at >= 0 && at < args.cos.size(0)), "position_ids holds ", at, ", cos and sin have ",
                      args.cos.size(0), " rows");
    const auto angles = [&](const at::Tensor &t) {
      return Numbers<T>(t, table ? at * t.stride(0) : b * t.stride(0) + l * t.stride(1),
                        t.stride(-1) * args.angle_step);
    };
    row.rotate(angles(args.cos), angles(args.sin), args.pairs, o.interleaved);
  };
  const auto process = [&](int64_t b, int64_t l, int64_t h) {
    const bool is_query = h < query_heads, is_key = !is_query && h < query_heads + kv_heads;
    const at::Tensor &from = is_query ? args.query : is_key ? args.key : args.value;
    const at::Tensor &to = is_query ? query : is_key ? key_cache : value_cache;
    const at::Tensor &bias = is_query ? args.query_bias : is_key ? args.key_bias : args.value_bias;
    const at::Tensor &norm = is_query ? args.q_norm : args.k_norm;
    const int64_t head = is_query ? h : is_key ? h - query_heads : h - query_heads - kv_heads;
    const int64_t to_row = is_query ? l : slot(args.cache, b, l, key_cache.size(2), o.ring);
    if (to_row < 0) return;
    Row<T> row(from.const_data_ptr<T>() + b * from.stride(0) + l * from.stride(1) + head * from.stride(2), from.size(3),
               Numbers<T>(bias, head * from.size(3)));
    if (is_query || is_key) {
      if (norm.defined()) row.normalise(Numbers<T>(norm, 0), o.eps, items);
      if (args.cos.defined()) rotate(row, b, l);
    }
    row.store(to.mutable_data_ptr<T>() + b * to.stride(0) + head * to.stride(1) + to_row * to.stride(2));
  };
  at::parallel_for(0, args.query.size(0) * length * heads, std::max<int64_t>(1, 4096 / head_dim),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) process(i / heads / length, i / heads % length, i % heads);
                   });
}

at::Tensor qkv_rope_cache(at::TensorList qkv, const at::Tensor &key_cache, const at::Tensor &value_cache,
                          const at::Tensor &cache_positions, const std::optional<at::Tensor> &cos,
                          const std::optional<at::Tensor> &sin, const std::optional<at::Tensor> &position_ids,
                          bool interleaved, const std::optional<at::Tensor> &bias,
                          const std::optional<at::Tensor> &q_norm, const std::optional<at::Tensor> &k_norm, double eps,
                          bool ring) {
  const QkvOptions options{cos, sin, position_ids, bias, q_norm, k_norm, interleaved, ring, eps};
  const QkvArgs args = check_qkv_rope_cache(qkv, key_cache, value_cache, cache_positions, options);
  at::Tensor query =
      at::empty({args.query.size(0), args.query.size(2), args.query.size(1), args.query.size(3)}, args.query.options());
  if (query.numel() == 0) return query;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, query.scalar_type(), "qkv_rope_cache",
                                  [&] { run<scalar_t>(args, options, query, key_cache, value_cache); });
  return query;
}

}  // namespace
}  // namespace rocforge::cpu

TORCH_LIBRARY_IMPL(rocforge, CPU, m) { m.impl("qkv_rope_cache", rocforge::cpu::qkv_rope_cache); }
