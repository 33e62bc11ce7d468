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

// `count` numbers that begin `offset` elements into t (of type T or float32), `step` apart.
template <class T>
void read_numbers(const at::Tensor &t, int64_t offset, int64_t step, int64_t count, std::vector<Wide<T>> &out) {
  out.resize(count);
  const auto read = [&](const auto *first) {
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<Wide<T>>(first[offset + i * step]);
  };
  if (t.scalar_type() == at::kFloat) {
    read(t.const_data_ptr<float>());
  } else {
    read(t.const_data_ptr<T>());
  }
}

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

// The order of row_items.h in which squares are summed: each lane's elements one after another, then the lanes as a
// tree.
class SumOrder {
 public:
  explicit SumOrder(const RowItems &items) : lanes_(row_lanes(items.head_dim, items.pairs, items.width)) {
    // Neighbouring terms belong to different lanes: their additions need not wait for each other.
    for (int first = 0; first < items.count(); first += lanes_) {
      for (int i = 0; i < 2 * items.width; ++i) {
        for (int lane = 0; lane < lanes_ && first + lane < items.count(); ++lane) {
          const ElementPair pair = items.pair(first + lane, i / 2);
          const int element = i % 2 == 0 ? pair.first : pair.second;
          if (element >= 0) terms_.push_back({element, lane});
        }
      }
    }
  }
  template <class W> W sum_of_squares(const W *row) const {
    W sums[32] = {};
    for (const Term &term : terms_) sums[term.lane] += row[term.element] * row[term.element];
    for (int half = lanes_ / 2; half > 0; half /= 2) {
      for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
    }
    return sums[0];
  }

 private:
  struct Term {
    int element, lane;
  };
  int lanes_;
  std::vector<Term> terms_;
};

// What one thread works with: a row on its way from the projection to the query or a cache, and its token's angles.
template <class T> class Row {
 public:
  Row(const QkvArgs &args, const QkvOptions &options, const SumOrder &order)
      : args_(args), options_(options), order_(order) {}

  void read_angles(int64_t b, int64_t l) {
    if (!args_.cos.defined()) return;
    const bool table = args_.angle.values.defined();
    const int64_t at = table ? position(args_.angle, b, l) : 0;
    TORCH_CHECK_INDEX(!table || (at >= 0 && at < args_.cos.size(0)), "position_ids holds ", at, ", cos and sin have ",
                      args_.cos.size(0), " rows");
    const auto read = [&](const at::Tensor &t, std::vector<W> &out) {
      const int64_t offset = table ? at * t.stride(0) : b * t.stride(0) + l * t.stride(1);
      read_numbers<T>(t, offset, t.stride(-1) * args_.angle_step, args_.pairs, out);
    };
    read(args_.cos, cos_);
    read(args_.sin, sin_);
  }

  void read(const T *x, int64_t head_dim, const at::Tensor &bias, int64_t head) {
    row_.resize(head_dim);
    for (int64_t i = 0; i < head_dim; ++i) row_[i] = static_cast<W>(x[i]);
    if (!bias.defined()) return;
    read_numbers<T>(bias, head * head_dim, 1, head_dim, numbers_);
    for (int64_t i = 0; i < head_dim; ++i) row_[i] += numbers_[i];
  }

  void normalise(const at::Tensor &weight) {
    const auto head_dim = static_cast<int64_t>(row_.size());
    const W mean = order_.sum_of_squares(row_.data()) / static_cast<W>(head_dim);
    const W scale = 1 / std::sqrt(mean + static_cast<W>(options_.eps));
    read_numbers<T>(weight, 0, 1, head_dim, numbers_);
    for (int64_t i = 0; i < head_dim; ++i) row_[i] = row_[i] * scale * numbers_[i];
  }

  void rotate() {
    const int64_t pairs = args_.pairs, step = options_.interleaved ? 2 : 1;
    W *const first = row_.data(), *const second = first + (options_.interleaved ? 1 : pairs);
    for (int64_t i = 0; i < pairs; ++i) {
      const W a = first[i * step], b = second[i * step];
      first[i * step] = a * cos_[i] - b * sin_[i];
      second[i * step] = b * cos_[i] + a * sin_[i];
    }
  }

  void store(T *out) const {
    for (size_t i = 0; i < row_.size(); ++i) out[i] = static_cast<T>(row_[i]);
  }

 private:
  using W = Wide<T>;
  const QkvArgs &args_;
  const QkvOptions &options_;
  const SumOrder &order_;
  std::vector<W> row_, numbers_, cos_, sin_;
};

template <class T>
void run(const QkvArgs &args, const QkvOptions &o, at::Tensor &query, const at::Tensor &key_cache,
         const at::Tensor &value_cache) {
  const int64_t length = args.query.size(1), capacity = key_cache.size(2);
  const SumOrder order({static_cast<int>(args.query.size(3)), static_cast<int>(args.pairs), o.interleaved,
                        static_cast<int>(16 / sizeof(T))});
  const auto process = [&](Row<T> &row, int64_t b, int64_t l, int64_t head, const at::Tensor &x, const at::Tensor &out,
                           int64_t out_row, const at::Tensor &bias, const at::Tensor &norm, bool rotates) {
    row.read(x.const_data_ptr<T>() + b * x.stride(0) + l * x.stride(1) + head * x.stride(2), x.size(3), bias, head);
    if (norm.defined()) row.normalise(norm);
    if (rotates) row.rotate();
    row.store(out.mutable_data_ptr<T>() + b * out.stride(0) + head * out.stride(1) + out_row * out.stride(2));
  };
  at::parallel_for(0, args.query.size(0) * length, 1, [&](int64_t begin, int64_t end) {
    Row<T> row(args, o, order);
    const bool rotates = args.cos.defined();
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / length, l = i % length, place = slot(args.cache, b, l, capacity, o.ring);
      row.read_angles(b, l);
      for (int64_t h = 0; h < args.query.size(2); ++h) {
        process(row, b, l, h, args.query, query, l, args.query_bias, args.q_norm, rotates);
      }
      for (int64_t h = 0; place >= 0 && h < args.key.size(2); ++h) {
        process(row, b, l, h, args.key, key_cache, place, args.key_bias, args.k_norm, rotates);
        process(row, b, l, h, args.value, value_cache, place, args.value_bias, {}, false);
      }
    }
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
