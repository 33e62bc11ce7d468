// Attention in plain arithmetic, for what the matrix cores do not take: float32, float64, and head sizes above 256.
// One wave a query row: a lane scores one key, then all lanes add up the values of those keys.
#include "hip/attention_plain.h"

namespace rocforge::gpu {
namespace {

constexpr int kWaves = 4;  // of a workgroup, each on a row of its own

// LDS of a wave: the query, the outputs, the weights of kWave keys.
template <class T> __global__ void __launch_bounds__(kWaves *kWave) rows_kernel(const Attention a) {
  using R = Real<T>;
  const int lane = lane_id();
  R *const query = dynamic_lds<R>() + wave_id() * (a.head_dim + a.value_dim + kWave);
  R *const out = query + a.head_dim, *const weights = out + a.value_dim;
  const int64_t heads = a.kv_heads * a.group, rows = a.batch * heads * a.rows;
  const int64_t wanted = static_cast<int64_t>(blockIdx.x) * kWaves + wave_id(), row = wanted < rows ? wanted : rows - 1;
  const int64_t batch = row / (heads * a.rows), head = row / a.rows % heads, kv_head = head / a.group;
  const RowPlace here = place_of_row(a, batch, row % a.rows);
  const Sequence &sequence = here.sequence;
  const bool belongs = here.in_sequence();
  const KeyRange keys = belongs ? sequence.rule.visible(here.query) : KeyRange{0, 0};

  const T *const query_row = row_of<T>(a.query, batch, head, row % a.rows);
  for (int d = lane; d < a.head_dim; d += kWave) query[d] = widened(query_row[d]);
  for (int d = lane; d < a.value_dim; d += kWave) out[d] = 0;
  syncwave();

  const R slope = a.alibi.data ? head_number<R>(a.alibi, batch, head) : 0;
  const int64_t mask_start = mask_row(a, sequence, head, here.query), position = sequence.rule.position(here.query);
  const auto exp_scale = static_cast<R>(a.exp_scale);
  R peak = -R(kInfinity), sum = 0;
  for (int64_t first = keys.begin; first < keys.end; first += kWave) {
    const int64_t key = first + lane;
    const int count = keys.end - first < kWave ? static_cast<int>(keys.end - first) : kWave;
    R x = -R(kInfinity);
    if (lane < count) {
      const T *const key_row = row_of<T>(a.key, batch, kv_head, sequence.key_begin + key);
      x = logit(a, dot<R>(query, key_row, a.head_dim), slope, position - key, mask_start + key * a.mask.key);
    }
    const R best = reduce(x, [](R l, R r) { return r > l || l != l ? r : l; });  // of numbers, not of NaN
    const R top = best > peak ? best : peak;
    const R base = top == -R(kInfinity) ? 0 : top;
    const R factor = natural_exp((peak - base) * exp_scale), weight = natural_exp((x - base) * exp_scale);
    sum = sum * factor + reduce(weight, [](R l, R r) { return l + r; });
    peak = top;
    syncwave();  // the weights before were read
    weights[lane] = weight;
    syncwave();
    const T *const values = row_of<T>(a.value, batch, kv_head, sequence.key_begin + first);
    for (int d = lane; d < a.value_dim; d += kWave) {
      R added = 0;
      for (int k = 0; k < count; ++k) added += weights[k] * widened(values[k * a.value.row + d]);
      out[d] = out[d] * factor + added;
    }
  }
  if (wanted >= rows) return;
  const auto end = end_row(a, head, peak * exp_scale, sum);
  if (lane == 0) a.lse[row] = static_cast<float>(end.lse);
  for (int d = lane; d < a.value_dim; d += kWave) {
    static_cast<T *>(a.out)[row * a.value_dim + d] = narrowed<T>(out[d] * end.factor);
  }
}

template <class T> void launch_rows(const Attention &a, void *stream) {
  const DeviceProperties device = device_properties();
  const size_t wave_values = static_cast<size_t>(a.head_dim) + a.value_dim + device.wave_size;
  const int64_t rows = a.batch * a.kv_heads * a.group * a.rows, workgroups = (rows + kWaves - 1) / kWaves;
  const size_t lds = kWaves * wave_values * sizeof(Real<T>);
  if (lds > lds_bytes(device.arch)) {
    throw std::runtime_error("mqa_attention: head sizes " + std::to_string(a.head_dim) + " and " +
                             std::to_string(a.value_dim) + " (value) are too large: together, at most " +
                             std::to_string(lds_bytes(device.arch) / kWaves / sizeof(Real<T>) - device.wave_size) +
                             " in this dtype");
  }
  if (workgroups > INT32_MAX) throw std::runtime_error("mqa_attention: more than 2^33 query rows in plain arithmetic");
  launch({"mqa_attention (plain arithmetic)", dim3(static_cast<unsigned>(workgroups)),
          static_cast<unsigned>(kWaves * device.wave_size), stream, lds},
         rows_kernel<T>, a);
}

}  // namespace

void launch_attention_rows(const Attention &a, void *stream) {
  switch (a.type) {
    case Element::kHalf:
      return launch_rows<f16>(a, stream);
    case Element::kBFloat16:
      return launch_rows<bf16>(a, stream);
    case Element::kDouble:
      return launch_rows<double>(a, stream);
    default:
      return launch_rows<float>(a, stream);
  }
}

}  // namespace rocforge::gpu
