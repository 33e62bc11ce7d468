// How the work of linear's few rows is shared out, and the sum over workgroups that shared one product.
#include "hip/gpu.h"
// gpu.h first: it says what the formats' functions are on this device.
#include "formats/registry.h"
#include "hip/linear.h"
#include "hip/linear_stage.h"
#include "hip/tiles.h"

#include <utility>

namespace rocforge::gpu {
namespace {

constexpr int kThreads = 256;
constexpr int kMostSplits = 16;

template <class T>
__global__ void __launch_bounds__(kThreads)
    linear_combine_kernel(const LinearWork work, const float *partial, int splits) {
  const int64_t count = work.rows * work.out_features, i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  float sum = 0;
  for (int s = 0; s < splits; ++s) sum += partial[s * count + i];
  if (work.bias) sum += to_float(static_cast<const T *>(work.bias)[i % work.out_features]);
  static_cast<T *>(work.out)[i] = from_float<T>(sum);
}

using LinearShard = void (*)(const LinearWork &, const LinearPlan &, void *);
template <int... shards> LinearShard shard_at(int index, std::integer_sequence<int, shards...>) {
  constexpr LinearShard kShards[] = {linear_rows_shard<shards>...};
  return kShards[index];
}

bool aligned(const LinearWork &work, const formats::FormatInfo &format) {
  const int align = largest_power_of_two(format.block_bytes, 16);
  const int64_t bits = reinterpret_cast<intptr_t>(work.packed) | work.row_stride | work.expert_stride;
  return bits % align == 0;
}

void launch_combine(const LinearWork &work, const LinearPlan &plan, void *stream) {
  const int64_t workgroups = (work.rows * work.out_features + kThreads - 1) / kThreads;
  auto *const kernel = plan.type == InputType::kFloat  ? linear_combine_kernel<float>
                       : plan.type == InputType::kHalf ? linear_combine_kernel<f16>
                                                       : linear_combine_kernel<bf16>;
  launch({"linear (combine)", dim3(static_cast<unsigned>(workgroups)), kThreads, stream}, kernel, work, plan.partial,
         plan.splits);
}

}  // namespace

LinearPlan plan_linear_rows(const LinearWork &work, int format, InputType type) {
  const DeviceProperties &device = device_properties();
  LinearPlan plan{format, type, false, false, 1, nullptr};
  plan.aligned = is_nvidia(device.arch) && aligned(work, formats::kFormats[format]);
  plan.wide = is_nvidia(device.arch) && type != InputType::kFloat && !work.offsets &&
              work.rows > linear_tile(device.arch, false).columns;
  const LinearTile tile = linear_tile(device.arch, plan.wide);
  // Two workgroups for each compute unit, as long as each wave has two pieces.
  const int64_t row_tiles = (work.out_features + 16 * tile.row_waves - 1) / (16 * tile.row_waves);
  const int64_t workgroups = row_tiles * linear_column_tiles(work, tile.columns);
  const int64_t pieces = (work.in_features + kPieceWeights - 1) / kPieceWeights;
  while (plan.splits < kMostSplits && workgroups * plan.splits < 2 * device.compute_units &&
         pieces >= 4 * plan.splits * tile.depth_waves) {
    plan.splits *= 2;
  }
  return plan;
}

void launch_linear_rows(const LinearWork &work, const LinearPlan &plan, void *stream) {
  const int pair = plan.format % (kLinearShards / 2), odd = plan.aligned ? 0 : 1;
  shard_at(2 * pair + odd, std::make_integer_sequence<int, kLinearShards>())(work, plan, stream);
  if (plan.splits > 1) launch_combine(work, plan, stream);
}

}  // namespace rocforge::gpu
