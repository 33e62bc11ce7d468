// What grouped_linear does without matrix cores, in float32: plain types, and the gradient in the input.
#include "hip/gpu.h"
// gpu.h first: it says what the formats' functions are on this device.
#include "formats/registry.h"
#include "hip/linear_columns.h"

namespace rocforge::gpu {
namespace {

constexpr int kWaves = 4;    // of a workgroup
constexpr int kColumns = 8;  // rows of the input

// A wave makes one packed row's outputs for all columns; its lanes share the weights.
template <class F>
__global__ void __launch_bounds__(kWaves *kWave)
    grouped_plain_kernel(const LinearWork work, const uint32_t column_tiles) {
  const uint32_t row_tile = blockIdx.x / column_tiles;
  const ColumnTile columns = column_tile(work, blockIdx.x - row_tile * column_tiles, kColumns);
  if (columns.count == 0) return;
  const int64_t out_row = static_cast<int64_t>(row_tile) * kWaves + wave_id();
  float sums[kColumns] = {};
  if (columns.expert < work.experts && out_row < work.out_features) {
    const auto *const weights = reinterpret_cast<const typename F::Block *>(
        work.packed + columns.expert * work.expert_stride + out_row * work.row_stride);
    const float *const input = static_cast<const float *>(work.input) + columns.first * work.in_features;
    for (int64_t k = lane_id(); k < work.in_features; k += kWave) {
      const float weight = F::value(weights[k]);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        sums[c] = fmaf(weight, input[(c < columns.count ? c : 0) * work.in_features + k], sums[c]);
      }
    }
  }
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const float sum = reduce(sums[c], [](float x, float y) { return x + y; });
    if (lane_id() == 0 && c < columns.count && out_row < work.out_features) {
      static_cast<float *>(work.out)[(columns.first + c) * work.out_features + out_row] = sum;
    }
  }
}

// Weights 8 * group .. of a packed row; 0 behind its end.
template <class F>
ROCFORGE_DEVICE void decode_group(const uint8_t *row, int64_t group, int64_t weights, float (&out)[8]) {
  const auto *const blocks = reinterpret_cast<const typename F::Block *>(row);
  if constexpr (!F::is_plain) {
    formats::decode8<F>(blocks, group, out);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = 8 * group + i < weights ? F::value(blocks[8 * group + i]) : 0;
  }
}

// A lane owns 8 values of each gradient row; the waves share the packed rows, and add up in order.
template <class F>
__global__ void __launch_bounds__(kWaves *kWave)
    grouped_gradient_kernel(const LinearWork work, const uint32_t column_tiles) {
  SHARED(float, sums_of_waves, [kWaves][8][kWave]);
  const uint32_t depth_tile = blockIdx.x / column_tiles;
  const ColumnTile columns = column_tile(work, blockIdx.x - depth_tile * column_tiles, kColumns);
  if (columns.count == 0) return;
  const int64_t groups = (work.in_features + 7) / 8, wanted = static_cast<int64_t>(depth_tile) * kWave + lane_id();
  const int64_t group = wanted < groups ? wanted : groups - 1;
  float sums[kColumns][8] = {};
  if (columns.expert < work.experts) {
    const uint8_t *const rows = work.packed + columns.expert * work.expert_stride;
    const float *const grad = static_cast<const float *>(work.input) + columns.first * work.out_features;
    for (int64_t o = wave_id(); o < work.out_features; o += kWaves) {
      float weights[8];
      decode_group<F>(rows + o * work.row_stride, group, work.in_features, weights);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const float g = grad[(c < columns.count ? c : 0) * work.out_features + o];
#pragma unroll
        for (int i = 0; i < 8; ++i) sums[c][i] = fmaf(g, weights[i], sums[c][i]);
      }
    }
  }
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    syncthreads();  // the sums of the last column are read
#pragma unroll
    for (int i = 0; i < 8; ++i) sums_of_waves[wave_id()][i][lane_id()] = sums[c][i];
    syncthreads();
    for (int i = threadIdx.x; i < 8 * kWave; i += kWaves * kWave) {
      const int64_t k = static_cast<int64_t>(depth_tile) * kWave * 8 + i;
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kWaves; ++w) sum += sums_of_waves[w][i % 8][i / 8];
      if (c < columns.count && k < work.in_features) {
        static_cast<float *>(work.out)[(columns.first + c) * work.in_features + k] = sum;
      }
    }
  }
}

// `tiles`: workgroups for each tile of columns.
template <class Kernel> void launch_grouped(const LinearWork &work, int64_t tiles, Kernel kernel, void *stream) {
  const int64_t column_tiles = linear_column_tiles(work, kColumns);
  if (tiles > INT32_MAX / column_tiles) throw std::runtime_error("grouped_linear: more than 2^31 tiles of output");
  const auto threads = static_cast<unsigned>(kWaves * device_properties().wave_size);
  launch({"grouped_linear", dim3(static_cast<unsigned>(tiles * column_tiles)), threads, stream}, kernel, work,
         static_cast<uint32_t>(column_tiles));
}

}  // namespace

void launch_grouped_plain(const LinearWork &work, int format, void *stream) {
  formats::visit(format, [&](auto f) {
    using F = decltype(f);
    if constexpr (F::is_plain) {
      launch_grouped(work, (work.out_features + kWaves - 1) / kWaves, grouped_plain_kernel<F>, stream);
    }
  });
}

void launch_grouped_gradient(const LinearWork &work, int format, void *stream) {
  const int64_t weights = 8 * device_properties().wave_size;
  formats::visit(format, [&](auto f) {
    launch_grouped(work, (work.in_features + weights - 1) / weights, grouped_gradient_kernel<decltype(f)>, stream);
  });
}

}  // namespace rocforge::gpu
