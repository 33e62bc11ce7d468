// A few rows of input times packed weights that are read once.
//
// A workgroup has 16 packed rows for each of its row_waves. Its depth_waves share the pieces of these rows, each taking
// every depth_waves-th; in the end their sums are added up in LDS, in order.
//
// This file is compiled once for each ROCFORGE_SHARD below kLinearShards: even shards for blocks that begin at
// multiples of their alignment, where that makes a difference, odd ones for blocks at any byte; and in each pair of
// shards every (kLinearShards / 2)-th format.
#if ROCFORGE_SHARD % 2 == 0
  #define ROCFORGE_ALIGNED_BLOCKS  // for gpu.h
#endif
#define ROCFORGE_WORD_LOADS  // for gpu.h
#include "hip/gpu.h"
// gpu.h first: it says what the formats' functions are on this device.
#include "formats/registry.h"
#include "hip/linear_columns.h"
#include "hip/linear_rows.h"
#include "hip/tiles.h"

namespace rocforge::gpu {
namespace {

static_assert(ROCFORGE_SHARDS == kLinearShards, "CMake and linear.h agree");
constexpr bool kAligned = formats::kAlignedBlocks;
// AMD reads any bytes with one instruction.
constexpr bool kCompiled = !kAligned || is_nvidia(kArch);

// The pieces of one wave: its sums go to `sums`.
template <class F, class Product, class Stream>
ROCFORGE_DEVICE void multiply_pieces(Product &product, Stream &stream, const PackedWord *lds,
                                     const uint8_t *const (&rows)[Product::kRows], int64_t in_features, int64_t first,
                                     int64_t step) {
  using Shape = PieceShape<F, kAligned>;
  constexpr int kStages = Stream::kStages, kAhead = kHasAsyncCopies ? kStages - 1 : 1;
  static_assert(kAhead > 0, "a piece is on its way while another is used");
  const int64_t pieces = (in_features + kPieceWeights - 1) / kPieceWeights;
#pragma unroll
  for (int s = 0; s < kAhead; ++s) {
    if (first + s * step < pieces) {
      stream.request(first + s * step, s);
    } else if constexpr (kHasAsyncCopies) {
      copies_issued();
    }
  }
  int stage = 0;
  for (int64_t piece = first; piece < pieces; piece += step) {
    if constexpr (!kHasAsyncCopies) stream.template receive<0>();
    typename Product::Columns columns[Product::kPrefetch ? Product::kBlocks : 1];
    const int64_t left = in_features - piece * kPieceWeights;
    const bool whole = F::block_size == kPieceWeights || left >= kPieceWeights;
    if constexpr (Product::kPrefetch) {
#pragma unroll
      for (int b = 0; b < Product::kBlocks; ++b) {
        // Loads without a branch; what lies behind the end is not used.
        columns[b] = product.load_columns(whole || 32 * b < left ? piece * kPieceWeights + 32 * b : 0);
      }
    }
    const int64_t next = piece + kAhead * step;
    if (next < pieces) {
      stream.request(next, kHasAsyncCopies ? (stage + kAhead) % kStages : 0);
    } else if constexpr (kHasAsyncCopies) {
      copies_issued();
    }
    if constexpr (kHasAsyncCopies) stream.template receive<kAhead>();
    syncwave();

    const uint8_t *at[Product::kRows];
#pragma unroll
    for (int r = 0; r < Product::kRows; ++r) {
      const auto *const row = lds + stage * Stream::kStageWords + Product::row(r) * Shape::kStride;
      at[r] = reinterpret_cast<const uint8_t *>(row) + Stream::shift_of(rows[r] + piece * Shape::kBytes);
    }
    if (Product::kPrefetch && whole) {
#pragma unroll
      for (int b = 0; b < Product::kBlocks; ++b) product.add(at, b, columns[Product::kPrefetch ? b : 0]);
    } else {  // unrolled, it would bring many columns into registers at once
      const int blocks = whole ? Product::kBlocks : static_cast<int>((left + 31) / 32);
#pragma unroll 1
      for (int b = 0; b < blocks; ++b) product.add(at, b, product.load_columns(piece * kPieceWeights + 32 * b));
    }
    syncwave();
    if (kHasAsyncCopies) stage = stage + 1 == kStages ? 0 : stage + 1;
  }
}

template <bool kWide> inline constexpr int kRowsThreads = linear_threads(linear_tile(kArch, kWide), kArch);

// What the kernel is made of, on the architecture compiled for.
template <class F, class Input, bool kWide> struct RowsShape {
  static constexpr LinearTile kTile = linear_tile(kArch, kWide);
  static constexpr int kStages = linear_stages(kTile, kArch, PieceShape<F, kAligned>::kStageBytes);
  using Product = RowsProduct<F, Input, kTile.columns / LinearLayout<Input, kArch>::kColumns>;
  using Stream = PieceStream<F, kAligned, kStages>;
};

template <class F, class Input, bool kWide>
__global__ void __launch_bounds__(kRowsThreads<kWide>)
    linear_rows_kernel(const LinearWork work, const uint32_t column_tiles, float *partial) {
  using Shape = RowsShape<F, Input, kWide>;
  using Product = typename Shape::Product;
  using Stream = typename Shape::Stream;
  constexpr LinearTile kTile = Shape::kTile;
  constexpr int kColumns = kTile.columns, kRows = 16 * kTile.row_waves;
  const uint32_t row_tile = blockIdx.x / column_tiles;
  const ColumnTile columns = column_tile(work, blockIdx.x - row_tile * column_tiles, kColumns);
  if (columns.count == 0) return;
  const int row_wave = wave_id() / kTile.depth_waves, depth_wave = wave_id() % kTile.depth_waves;
  const bool has_weights = columns.expert < work.experts;

  Product product(static_cast<const Input *>(work.input) + columns.first * work.in_features, work.in_features,
                  columns.count);
  const int64_t first_row = static_cast<int64_t>(row_tile) * kRows + 16 * row_wave,
                rest = work.out_features - first_row;
  auto *const lds = dynamic_lds<PackedWord>();
  if (has_weights && rest > 0) {
    const int valid = rest < 16 ? static_cast<int>(rest) : 16;
    const uint8_t *const rows = work.packed + columns.expert * work.expert_stride + first_row * work.row_stride;
    const int64_t row_bytes = work.in_features / F::block_size * static_cast<int64_t>(sizeof(typename F::Block));
    auto *const own = lds + wave_id() * Stream::kLdsWords;
    Stream stream(own, rows, work.row_stride, valid, row_bytes);
    const uint8_t *lane_rows[Product::kRows];
#pragma unroll
    for (int r = 0; r < Product::kRows; ++r) {
      lane_rows[r] = rows + (Product::row(r) < valid ? Product::row(r) : valid - 1) * work.row_stride;
    }
    multiply_pieces<F>(product, stream, own, lane_rows, work.in_features, blockIdx.y * kTile.depth_waves + depth_wave,
                       static_cast<int64_t>(gridDim.y) * kTile.depth_waves);
  }

  syncthreads();  // the pieces are done with: their LDS becomes [depth_waves][kRows][kColumns] sums
  auto *const sums = reinterpret_cast<float *>(lds);
  product.store_sums(sums + (depth_wave * kRows + 16 * row_wave) * kColumns);
  syncthreads();
  for (int i = threadIdx.x; i < kRows * kColumns; i += kRowsThreads<kWide>) {
    const int row = i % kRows, column = i / kRows;
    const int64_t out_row = static_cast<int64_t>(row_tile) * kRows + row;
    if (column >= columns.count || out_row >= work.out_features) continue;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kTile.depth_waves; ++w) sum += sums[(w * kRows + row) * kColumns + column];
    const int64_t at = (columns.first + column) * work.out_features + out_row;
    if (partial) {
      partial[blockIdx.y * work.rows * work.out_features + at] = sum;
    } else {
      if (work.bias) sum += to_float(static_cast<const Input *>(work.bias)[out_row]);
      static_cast<Input *>(work.out)[at] = from_float<Input>(sum);
    }
  }
}

template <class F, class Input, bool kWide>
void launch_rows(const LinearWork &work, const LinearPlan &plan, void *stream) {
  const Arch arch = device_properties().arch;
  const LinearTile tile = linear_tile(arch, kWide);
  const int64_t row_tiles = (work.out_features + 16 * tile.row_waves - 1) / (16 * tile.row_waves);
  const int64_t column_tiles = linear_column_tiles(work, tile.columns);
  if (row_tiles > INT32_MAX / column_tiles) throw std::runtime_error("linear: more than 2^31 tiles of output");
  const size_t lds = linear_lds_bytes(tile, arch, PieceShape<F, kAligned>::kStageBytes);
  launch({"linear", dim3(static_cast<unsigned>(row_tiles * column_tiles), plan.splits),
          static_cast<unsigned>(linear_threads(tile, arch)), stream, lds},
         linear_rows_kernel<F, Input, kWide>, work, static_cast<uint32_t>(column_tiles), plan.partial);
}

template <class F, class Input> void launch_format(const LinearWork &work, const LinearPlan &plan, void *stream) {
  if constexpr (kHasWideTile<kArch, Input>) {
    if (plan.wide) return launch_rows<F, Input, true>(work, plan, stream);
  }
  launch_rows<F, Input, false>(work, plan, stream);
}

}  // namespace

template <> void linear_rows_shard<ROCFORGE_SHARD>(const LinearWork &work, const LinearPlan &plan, void *stream) {
  if constexpr (kCompiled) {
    formats::visit(plan.format, [&](auto f) {
      using F = decltype(f);
      if constexpr (!F::is_plain && formats::find(F::name) % (kLinearShards / 2) == ROCFORGE_SHARD / 2) {
        switch (plan.type) {
          case InputType::kFloat:
            return launch_format<F, float>(work, plan, stream);
          case InputType::kHalf:
            return launch_format<F, f16>(work, plan, stream);
          case InputType::kBFloat16:
            return launch_format<F, bf16>(work, plan, stream);
        }
      }
    });
  }
}

}  // namespace rocforge::gpu
