// Gradients in plain arithmetic, for what the matrix cores do not take: float32, float64, and head sizes that the tiles
// have no place for. One wave a query row, then one wave a key: a lane makes one weight, then all lanes add up rows.
#include "hip/gpu.h"
// gpu.h first.
#include "hip/attention_backward.h"
#include "hip/attention_plain.h"
#include "hip/gpu/tile_moves.h"

namespace rocforge::gpu {
namespace {

constexpr int kMostWaves = 4;  // of a workgroup, each on a row of its own

// The saved lse has been rounded to float32. Below this bound that changes a weight by less than 2e-6 of itself;
// beyond it, and for float64, maximum and sum are computed again.
constexpr float kExactLse = 64;

template <class R> struct Weighting {
  R base, inverse_sum;
};

// From all logits of a row, one a lane: logit_at(first + lane), -inf where there is none.
template <class R, class Logit>
ROCFORGE_DEVICE Weighting<R> weighting(const Attention &a, int64_t head, KeyRange keys, Logit logit_at) {
  const auto exp_scale = static_cast<R>(a.exp_scale);
  R peak = -R(kInfinity), sum = 0;
  for (int64_t first = keys.begin; first < keys.end; first += kWave) {
    const R x = logit_at(first + lane_id());
    const R best = reduce(x, [](R l, R r) { return r > l || l != l ? r : l; });  // of numbers, not of NaN
    const R top = best > peak ? best : peak, base = top == -R(kInfinity) ? 0 : top;
    sum = sum * natural_exp((peak - base) * exp_scale) +
          reduce(natural_exp((x - base) * exp_scale), [](R l, R r) { return l + r; });
    peak = top;
  }
  if (a.sinks.data) {
    const R sink = head_number<R>(a.sinks, 0, head) / exp_scale, top = sink > peak ? sink : peak;
    sum = sum * natural_exp((peak - top) * exp_scale) + natural_exp((sink - top) * exp_scale);
    peak = top;
  }
  return {peak, 1 / sum};
}

// LDS of a wave: query, grad_out, grad_query, and dS of kWave keys.
int query_values(const Attention &a, int wave) { return 2 * a.head_dim + a.value_dim + wave; }

template <class T>
__global__ void __launch_bounds__(kMostWaves *kWave) query_kernel(const AttentionGradients g, int waves) {
  using R = Real<T>;
  const Attention &a = g.a;
  const int lane = lane_id();
  R *const query = dynamic_lds<R>() + wave_id() * (2 * a.head_dim + a.value_dim + kWave);
  R *const grad_out = query + a.head_dim, *const grad_query = grad_out + a.value_dim;
  R *const grad_scores = grad_query + a.head_dim;
  const int64_t heads = a.kv_heads * a.group, rows = a.batch * heads * a.rows;
  const int64_t wanted = static_cast<int64_t>(blockIdx.x) * waves + wave_id(), row = wanted < rows ? wanted : rows - 1;
  const int64_t batch = row / (heads * a.rows), head = row / a.rows % heads, kv_head = head / a.group;
  const RowPlace here = place_of_row(a, batch, row % a.rows);
  const Sequence &sequence = here.sequence;
  const float lse = a.lse[row];
  const bool sees = here.in_sequence() && lse != -kInfinity;
  const KeyRange keys = sees ? sequence.rule.visible(here.query) : KeyRange{0, 0};

  const T *const query_row = row_of<T>(a.query, batch, head, row % a.rows);
  const T *const grad_row = row_of<T>(g.grad_out, batch, head, row % a.rows);
  const T *const out_row = static_cast<const T *>(a.out) + row * a.value_dim;
  for (int d = lane; d < a.head_dim; d += kWave) query[d] = widened(query_row[d]), grad_query[d] = 0;
  R delta = 0;
  for (int d = lane; d < a.value_dim; d += kWave) {
    grad_out[d] = widened(grad_row[d]);
    delta += grad_out[d] * widened(out_row[d]);
  }
  delta = reduce(delta, [](R l, R r) { return l + r; });
  if (g.grad_lse) delta -= g.grad_lse[row];
  if (!sees) delta = 0;
  syncwave();

  const R slope = a.alibi.data ? head_number<R>(a.alibi, batch, head) : 0;
  const int64_t mask_start = mask_row(a, sequence, head, here.query), position = sequence.rule.position(here.query);
  const T *const key_rows = row_of<T>(a.key, batch, kv_head, sequence.key_begin);
  const T *const value_rows = row_of<T>(a.value, batch, kv_head, sequence.key_begin);
  const auto logit_at = [&](int64_t key, R *cap_slope) {
    if (key >= keys.end) return -R(kInfinity);
    const Attention &again = reread(g).a;
    const R score = dot<R>(query, key_rows + key * again.key.row, again.head_dim);
    return logit(again, score, slope, position - key, mask_start + key * again.mask.key, cap_slope);
  };

  const auto exp_scale = static_cast<R>(a.exp_scale);
  Weighting<R> weights{sees ? lse / exp_scale : R(kInfinity), 1};
  const bool exact = std::is_same_v<R, float> && fabsf(lse) < kExactLse;
  if (sees && !exact) weights = weighting<R>(a, head, keys, [&](int64_t key) { return logit_at(key, nullptr); });

  for (int64_t first = keys.begin; first < keys.end; first += kWave) {
    const int64_t key = first + lane;
    const int count = keys.end - first < kWave ? static_cast<int>(keys.end - first) : kWave;
    R grad = 0;
    if (lane < count) {
      R cap_slope;
      const R x = logit_at(key, &cap_slope);
      const R weight = natural_exp((x - weights.base) * exp_scale) * weights.inverse_sum;
      grad = weight * (dot<R>(grad_out, value_rows + key * a.value.row, a.value_dim) - delta) * cap_slope;
    }
    syncwave();  // those before were read
    grad_scores[lane] = grad;
    syncwave();
    for (int d = lane; d < a.head_dim; d += kWave) {
      R added = 0;
      for (int k = 0; k < count; ++k) added += grad_scores[k] * widened(key_rows[(first + k) * a.key.row + d]);
      grad_query[d] += added;
    }
  }
  if (wanted >= rows) return;
  const AttentionGradients &again = reread(g);
  const int dims = again.a.head_dim;
  if (lane == 0) {
    static_cast<R *>(again.numbers.base)[row] = weights.base;
    static_cast<R *>(again.numbers.inverse_sum)[row] = weights.inverse_sum;
    static_cast<R *>(again.numbers.delta)[row] = delta;
  }
  for (int d = lane; d < dims; d += kWave) {
    static_cast<T *>(again.grad_query)[row * dims + d] = narrowed<T>(grad_query[d] * static_cast<R>(again.a.scale));
  }
}

// LDS of a wave: key, value and their gradients, and weights and dS of kWave rows.
int key_values(const Attention &a, int wave) { return 2 * (a.head_dim + a.value_dim + wave); }

template <class T>
__global__ void __launch_bounds__(kMostWaves *kWave) key_kernel(const AttentionGradients g, int waves) {
  using R = Real<T>;
  const Attention &a = g.a;
  const int lane = lane_id();
  R *const key_row = dynamic_lds<R>() + wave_id() * 2 * (a.head_dim + a.value_dim + kWave);
  R *const value_row = key_row + a.head_dim, *const grad_key = value_row + a.value_dim;
  R *const grad_value = grad_key + a.head_dim, *const weights = grad_value + a.value_dim;
  R *const grad_scores = weights + kWave;
  const int64_t keys = a.batch * a.kv_heads * a.keys;
  const int64_t wanted = static_cast<int64_t>(blockIdx.x) * waves + wave_id(), at = wanted < keys ? wanted : keys - 1;
  const int64_t batch = at / (a.kv_heads * a.keys), kv_head = at / a.keys % a.kv_heads;
  const Sequence sequence = a.cu_seqlens_k ? packed_sequence(a, sequence_at(a.cu_seqlens_k, a.sequences, at % a.keys))
                                           : padded_sequence(a, batch);
  const int64_t key = at % a.keys - sequence.key_begin;
  const AttentionRule &rule = sequence.rule;
  const KeyRange tile{key, key + 1};
  const bool seen = key >= 0 && key < rule.keys;
  const KeyRange queries = seen ? KeyRange{rule.first_row(tile), rule.end_row(tile)} : KeyRange{0, 0};

  const T *const keys_row = row_of<T>(a.key, batch, kv_head, at % a.keys);
  const T *const values_row = row_of<T>(a.value, batch, kv_head, at % a.keys);
  for (int d = lane; d < a.head_dim; d += kWave) key_row[d] = seen ? widened(keys_row[d]) : 0, grad_key[d] = 0;
  for (int d = lane; d < a.value_dim; d += kWave) value_row[d] = seen ? widened(values_row[d]) : 0, grad_value[d] = 0;
  syncwave();

  const auto exp_scale = static_cast<R>(a.exp_scale);
  for (int64_t head = kv_head * a.group; head < (kv_head + 1) * a.group; ++head) {
    const R slope = a.alibi.data ? head_number<R>(a.alibi, batch, head) : 0;
    const T *const query_rows = row_of<T>(a.query, batch, head, sequence.query_begin);
    const T *const grad_rows = row_of<T>(g.grad_out, batch, head, sequence.query_begin);
    for (int64_t first = queries.begin; first < queries.end; first += kWave) {
      const int64_t query = first + lane;
      const int count = queries.end - first < kWave ? static_cast<int>(queries.end - first) : kWave;
      R weight = 0, grad = 0;
      if (lane < count) {
        const AttentionGradients &again = reread(g);
        const int64_t row = out_row(again.a, sequence, head, query);
        const R score = dot<R>(key_row, query_rows + query * again.a.query.row, again.a.head_dim);
        const int64_t mask_at = mask_row(again.a, sequence, head, query) + key * again.a.mask.key;
        R cap_slope;
        const R x = logit(again.a, score, slope, rule.position(query) - key, mask_at, &cap_slope);
        weight = natural_exp((x - static_cast<const R *>(again.numbers.base)[row]) * exp_scale) *
                 static_cast<const R *>(again.numbers.inverse_sum)[row];
        const R grad_weight = dot<R>(value_row, grad_rows + query * again.grad_out.row, again.a.value_dim);
        grad = weight * (grad_weight - static_cast<const R *>(again.numbers.delta)[row]) * cap_slope;
      }
      syncwave();  // those before were read
      weights[lane] = weight, grad_scores[lane] = grad;
      syncwave();
      for (int d = lane; d < a.head_dim; d += kWave) {
        R added = 0;
        for (int r = 0; r < count; ++r) added += grad_scores[r] * widened(query_rows[(first + r) * a.query.row + d]);
        grad_key[d] += added;
      }
      for (int d = lane; d < a.value_dim; d += kWave) {
        R added = 0;
        for (int r = 0; r < count; ++r) added += weights[r] * widened(grad_rows[(first + r) * g.grad_out.row + d]);
        grad_value[d] += added;
      }
    }
  }
  if (wanted >= keys) return;
  for (int d = lane; d < a.head_dim; d += kWave) {
    static_cast<T *>(g.grad_key)[at * a.head_dim + d] = narrowed<T>(grad_key[d] * static_cast<R>(a.scale));
  }
  for (int d = lane; d < a.value_dim; d += kWave) {
    static_cast<T *>(g.grad_value)[at * a.value_dim + d] = narrowed<T>(grad_value[d]);
  }
}

// `items`: rows or keys, a wave each.
void launch_waves(void (*kernel)(AttentionGradients, int), const AttentionGradients &g, int64_t items,
                  size_t wave_bytes, void *stream) {
  const DeviceProperties device = device_properties();
  int waves = kMostWaves;
  while (waves > 1 && waves * wave_bytes > lds_bytes(device.arch)) waves /= 2;
  if (wave_bytes > lds_bytes(device.arch)) {
    throw std::runtime_error("mqa_attention_backward: head sizes " + std::to_string(g.a.head_dim) + " and " +
                             std::to_string(g.a.value_dim) + " (value) take " + std::to_string(wave_bytes) +
                             " bytes of LDS, this GPU has " + std::to_string(lds_bytes(device.arch)));
  }
  const int64_t workgroups = (items + waves - 1) / waves;
  if (workgroups > INT32_MAX)
    throw std::runtime_error("mqa_attention_backward: more than 2^33 rows in plain arithmetic");
  launch({"mqa_attention_backward (plain arithmetic)", dim3(static_cast<unsigned>(workgroups)),
          static_cast<unsigned>(waves * device.wave_size), stream, waves * wave_bytes},
         kernel, g, waves);
}

template <class T> void launch_both(const AttentionGradients &g, void *stream) {
  const Attention &a = g.a;
  const int wave = device_properties().wave_size;
  launch_waves(query_kernel<T>, g, a.batch * a.kv_heads * a.group * a.rows, query_values(a, wave) * sizeof(Real<T>),
               stream);
  launch_waves(key_kernel<T>, g, a.batch * a.kv_heads * a.keys, key_values(a, wave) * sizeof(Real<T>), stream);
}

}  // namespace

void launch_plain_gradients(const AttentionGradients &g, void *stream) {
  switch (g.a.type) {
    case Element::kHalf:
      return launch_both<f16>(g, stream);
    case Element::kBFloat16:
      return launch_both<bf16>(g, stream);
    case Element::kDouble:
      return launch_both<double>(g, stream);
    default:
      return launch_both<float>(g, stream);
  }
}

}  // namespace rocforge::gpu
