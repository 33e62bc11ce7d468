// Attention on matrix cores: online softmax over tiles of keys and values in LDS.
// Compiled in several shards: this file instantiates the dtype and head sizes of ROCFORGE_SHARD.
#include "hip/attention_mask.h"
#include "hip/attention_tile_work.h"
#include "hip/attention_wave.h"
#include "hip/tiles.h"

namespace rocforge::gpu {
namespace {

constexpr AttentionTile tile_of(Path path, Arch arch, int dim) {
  return path == Path::kPrefill ? prefill_tile(arch, dim) : decode_tile(arch, dim);
}
constexpr size_t lds_bytes_of(Path path, Arch arch, int dim) {
  const AttentionTile tile = tile_of(path, arch, dim);
  return path == Path::kDecodeBlocks ? attention_blocks_lds_bytes(tile, arch, dim)
                                     : attention_lds_bytes(tile, arch, dim);
}

template <Path path, int dim> constexpr AttentionTile kTileHere = tile_of(path, kArch, dim);
template <Path path, int dim> constexpr bool kHasTile = kTileHere<path, dim>.waves() > 0;
template <Path path, int dim>
constexpr int kThreads = kHasTile<path, dim> ? threads(kTileHere<path, dim>, kArch) : kWave;
template <Path path, int dim> constexpr int kOccupancy = kHasTile<path, dim> ? kTileHere<path, dim>.occupancy : 1;

// The types of one instantiation.
template <class T, int kDim, Path kPath> struct AttentionKernel {
  static constexpr AttentionTile kTile = kTileHere<kPath, kDim>;
  using Layout = AttentionLayout<T>;
  static constexpr int kGroupThreads = kTile.row_waves * kWave;  // that share a tile of keys
  static constexpr bool kShared = kTile.row_waves > 1;
  static constexpr int kWaveRows = kTile.row_blocks * Layout::kRows, kRows = kTile.row_waves * kWaveRows;
  using Pipe = std::conditional_t<
      kPath == Path::kDecodeBlocks, BlocksPipe<Layout, kDim, kTile.keys, kTile.stages, kGroupThreads, kShared>,
      std::conditional_t<Layout::kTransposesValues, StagedPipe<Layout, kDim, kTile.keys, kGroupThreads, kShared>,
                         AsyncPipe<Layout, kDim, kTile.keys, kTile.stages, kGroupThreads, kShared>>>;
  using Rows = WaveRows<T, kDim, kTile.row_blocks, kTile.keys, kTile.query_in_lds>;
  using QueryPlaces = typename Layout::template Rows<kDim>;
  static constexpr int kQueryTile = kTile.query_in_lds ? QueryPlaces::size(kRows) : 0;  // in values
  static constexpr int kThreads = kTile.waves() * kWave, kMergeStride = attention_merge_stride(kDim);
  using BoolMask = MaskTile<kRows, kTile.keys, kGroupThreads>;
  static constexpr size_t kLds = lds_bytes_of(kPath, kArch, kDim);
  static_assert(kLds + kTile.key_waves * sizeof(typename BoolMask::Bits) <= lds_bytes(kArch),
                "the tile is too large for this architecture");
  static_assert(kRows == tile_rows(kTile, kArch) && (kQueryTile + kTile.key_waves * Pipe::kSize) * sizeof(T) <= kLds,
                "tiles.h, for the host, says the same as the layouts");

  // Keys or values of a tile's head.
  static ROCFORGE_DEVICE auto source(const Heads &heads, const RowTile &tile, int dims) {
    const Sequence &s = tile.sequence;
    if constexpr (kPath == Path::kDecodeBlocks) {
      return block_source(heads, s.batch, tile.kv_head, s.key_begin, dims);
    } else {
      return gpu::source<T>(heads, s.batch, tile.kv_head, s.key_begin, dims);
    }
  }
};

template <class T, class Use> ROCFORGE_DEVICE void with_mask_type(const Mask &mask, Use use) {
  if (mask.type == Element::kFloat) {
    use(static_cast<const float *>(mask.data));
  } else {
    use(static_cast<const T *>(mask.data));
  }
}

ROCFORGE_DEVICE bool adds_mask(const Attention &a) { return a.mask.data && a.mask.type != Element::kBool; }

template <class Rows> ROCFORGE_DEVICE void scale_and_cap(Rows &rows, float scale, float softcap) {
  if (softcap == 0) {
    rows.change_scores([&](float x, int, int) { return x * scale; });
  } else {
    const float exponent = scale * (2 * kLog2E / softcap);  // tanh x = 1 - 2 / (e^2x + 1)
    rows.change_scores(
        [&](float x, int, int) { return softcap - 2 * softcap * fast_reciprocal(fast_exp2(x * exponent) + 1); });
  }
}

// Hides what the rule hides, and keys from `end` on. `query(s)`: of slot s, from the tile's first on.
template <int kKeys, class Rows, class Query>
ROCFORGE_DEVICE void hide_unseen(Rows &rows, const RowTile &tile, int64_t key, int64_t end, Query query) {
  int first[Rows::kSlots];
  uint32_t count[Rows::kSlots];
#pragma unroll
  for (int s = 0; s < Rows::kSlots; ++s) {
    const KeyRange visible = tile.sequence.rule.visible(tile.first_query + query(s));
    const int64_t last = visible.end < end ? visible.end : end;
    first[s] = static_cast<int>(clamp(visible.begin - key, 0, kKeys));
    count[s] = static_cast<uint32_t>(clamp(last - key, first[s], kKeys)) - first[s];
    first[s] -= Rows::lane_key();
  }
  rows.change_scores(
      [&](float x, int s, int k) { return static_cast<uint32_t>(k - first[s]) < count[s] ? x : -kInfinity; });
}

// Waves with rows of their own write them.
template <class T, class Rows> ROCFORGE_DEVICE void finish_rows(const Results<T> &results, Rows &rows, int first_row) {
  const bool writes_state = Rows::Layout::key(lane_id(), 0) == 0;  // one lane of each row
#pragma unroll
  for (int s = 0; s < Rows::kSlots; ++s) {
    const int r = Rows::row(first_row, s);
    if (r >= results.work.tile.rows) continue;
    const float factor = results.end(r, rows.peak(s), rows.sum(s), writes_state);
    if (!results.split()) rows.rescale(s, factor);
    results.with_out(r, [&](auto *out) { rows.store_row(s, out, results.a.value_dim); });
  }
}

// Waves that own the same rows bring them together in LDS, and all threads write the sums.
template <class T, int kDim, class K, class Rows>
ROCFORGE_DEVICE void merge_rows(const Results<T> &results, Rows &rows, int key_wave, float exp_scale) {
  constexpr int kWaves = K::kTile.key_waves, kRows = K::kRows, kBlock = K::Layout::kRows, kChunks = kDim / 4;
  constexpr int kStride = K::kMergeStride;
  float *const peaks = dynamic_lds<float>(), *const sums = peaks + kWaves * kRows,
               *const factors = sums + kWaves * kRows;
  float *const blocks = factors + kRows;
  syncthreads();  // all are done with their tiles
  const bool writes_state = K::Layout::key(lane_id(), 0) == 0;
#pragma unroll
  for (int s = 0; s < Rows::kSlots; ++s) {
    const int at = key_wave * kRows + Rows::row(0, s);
    if (writes_state) peaks[at] = rows.peak(s), sums[at] = rows.sum(s);
  }
  syncthreads();
  const auto best_of = [&](int r) {
    float best = peaks[r];
#pragma unroll
    for (int w = 1; w < kWaves; ++w) best = fmaxf(best, peaks[w * kRows + r]);
    return best == -kInfinity ? 0 : best;
  };
#pragma unroll
  for (int s = 0; s < Rows::kSlots; ++s) {
    rows.rescale(s, fast_exp2((rows.peak(s) - best_of(Rows::row(0, s))) * exp_scale));
  }
  for (int r = threadIdx.x; r < results.work.tile.rows; r += kWaves * kWave) {
    const float best = best_of(r);
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWaves; ++w) sum += sums[w * kRows + r] * fast_exp2((peaks[w * kRows + r] - best) * exp_scale);
    factors[r] = results.end(r, best, sum, true);
  }
#pragma unroll
  for (int m = 0; m < K::kTile.row_blocks; ++m) {
    rows.put_block(m, blocks + key_wave * kBlock * kStride, kStride);
    syncthreads();
#pragma unroll 2
    for (int i = threadIdx.x; i < kBlock * kChunks; i += kWaves * kWave) {
      const int in_block = i / kChunks, r = m * kBlock + in_block, d = i % kChunks * 4;
      float total[4] = {};
#pragma unroll
      for (int w = 0; w < kWaves; ++w) {
        const auto part = load<4>(blocks + (w * kBlock + in_block) * kStride + d);
#pragma unroll
        for (int j = 0; j < 4; ++j) total[j] += part[j];
      }
      if (r >= results.work.tile.rows || d >= results.a.value_dim) continue;
      const float factor = factors[r];
#pragma unroll
      for (int j = 0; j < 4; ++j) total[j] *= factor;
      results.with_out(r, [&](auto *out) { store(out + d, convert<std::decay_t<decltype(*out)>>(total)); });
    }
    if (m + 1 < K::kTile.row_blocks) syncthreads();
  }
}

template <class T, int kDim, Path kPath, bool kPlain>
ROCFORGE_DEVICE void attention(const Attention &a, const Numbering &numbering, const Splits &splits) {
  using K = AttentionKernel<T, kDim, kPath>;
  using Rows = typename K::Rows;
  constexpr AttentionTile kTile = K::kTile;
  const Work work = work_of(a, numbering, blockIdx.x, K::kRows, kTile.keys * kTile.key_waves);
  const RowTile &tile = work.tile;
  if (tile.rows <= 0) return;
  const FlatRows flat{tile, numbering.group};
  const int row_wave = kTile.key_waves > 1 ? 0 : wave_id(), key_wave = kTile.key_waves > 1 ? wave_id() : 0;
  const int first_row = row_wave * K::kWaveRows;

  T *const lds = dynamic_lds<T>();
  T *const pipe_tiles = lds + K::kQueryTile + key_wave * K::Pipe::kSize;
  const Walk walk(work.keys, key_wave, kTile.keys, kTile.key_waves);
  const auto keys = K::source(a.key, tile, a.head_dim), values = K::source(a.value, tile, a.value_dim);
  typename K::Pipe pipe(pipe_tiles, keys, values, walk, threadIdx.x % K::kGroupThreads);

  // Queries come first: what waits behind the first keys waits long.
  const Queries<T> queries(a, flat);
  Rows rows;
  if constexpr (K::kQueryTile == 0 && K::Layout::kTransposesValues) {
    queries.with_chunks([&](auto chunk) { rows.load_queries(first_row, chunk); });
    pipe.start();
  } else {
    // Where waves keep them in registers, LDS that no tile is copied to yet hands them over.
    T *query_tile = lds;
    if constexpr (K::kQueryTile == 0) query_tile += K::Pipe::kSpare;
    queries.template stage<typename K::QueryPlaces, K::kRows, kDim, K::kThreads>(query_tile);
    pipe.start();
    if constexpr (!K::kShared) {
      copies_arrived<kTile.stages - 1>();
      syncthreads();
    }
    if constexpr (!K::kQueryTile) {
      rows.load_queries_from_lds(query_tile);
      syncthreads();
    }
  }
  rows.clear();

  const float logit_scale = static_cast<float>(a.logit_scale), softcap = static_cast<float>(a.softcap);
  const float exp_scale = static_cast<float>(a.exp_scale) * kLog2E;
  // Whether a score times exp_scale is finite whatever the inputs are.
  const bool bounded =
      kPlain || fabsf(exp_scale) <= 1 || (softcap != 0 && softcap < 1e38f && !a.alibi.data && !adds_mask(a));
  int query[Rows::kSlots];    // counted from the tile's first
  float slope[Rows::kSlots];  // of ALiBi
#pragma unroll
  for (int s = 0; s < Rows::kSlots; ++s) {
    const int r = flat.clamped(Rows::row(first_row, s));
    query[s] = flat.query(r);
    slope[s] = a.alibi.data ? head_number<float>(a.alibi, tile.sequence.batch, flat.head(r)) : 0;
  }

  // Rows of the bool mask that the tile needs: one a query where all heads share them.
  SHARED(typename K::BoolMask::Bits, mask_bits, [kTile.key_waves]);
  const bool bool_mask = !kPlain && a.mask.data && a.mask.type == Element::kBool, heads_share_mask = a.mask.head == 0;
  const auto mask_start = [&](int r) {
    return heads_share_mask ? mask_row(a, tile.sequence, 0, tile.first_query + r)
                            : mask_row(a, tile.sequence, flat.head(r), tile.first_query + flat.query(r));
  };
  typename K::BoolMask mask(a.mask, mask_bits[key_wave], threadIdx.x % K::kGroupThreads);
  if (bool_mask) {
    mask.set_rows(heads_share_mask ? flat.query(tile.rows - 1) + 1 : tile.rows, mask_start);
    mask.fetch(walk.key(0), walk.keys_left(walk.key(0), kTile.keys));
    mask.pack(0, walk.key(0), walk.keys_left(walk.key(0), kTile.keys), mask_start);
  }
  const auto mask_row_of = [&](int s) { return heads_share_mask ? query[s] : flat.clamped(Rows::row(first_row, s)); };
  const auto each_word = [&](auto use) {
#pragma unroll
    for (int s = 0; s < Rows::kSlots; ++s) {
#pragma unroll
      for (int w = 0; w < K::BoolMask::kWords; ++w) use(s, w);
    }
  };

  // Tiles that all rows see whole: nothing is hidden there.
  const AttentionRule &rule = tile.sequence.rule;
  const int64_t whole_end = rule.visible(tile.first_query).end;
  const int first_whole = walk.tiles_before(rule.visible(tile.last_query).begin);
  const int end_whole = walk.tiles_within(whole_end < work.keys.end ? whole_end : work.keys.end, kTile.keys);
  const auto whole = static_cast<unsigned>(end_whole > first_whole ? end_whole - first_whole : 0);
  for (int t = 0; t < walk.tiles; ++t) {
    const int64_t key = walk.key(t);
    const T *const key_tile = pipe.keys_ready();
    bool visible = true, partly = false;  // by the bool mask, of this wave's rows
    if (bool_mask) {
      mask.fetch(walk.key(t + 1), walk.keys_left(walk.key(t + 1), kTile.keys));
      bool some = false, all = true;
      each_word([&](int s, int w) {
        const auto word = mask.word(t % 2, mask_row_of(s), w);
        some |= word != 0, all &= word == K::BoolMask::kAll;
      });
      visible = any(some), partly = any(!all);
    }
    if (visible) {
      rows.score(lds, first_row, key_tile);
      if constexpr (!kPlain) {
        if (softcap != 0 || logit_scale != 1) scale_and_cap(rows, logit_scale, softcap);
        if (a.alibi.data) {
          int ahead[Rows::kSlots];  // of the lane's first key
#pragma unroll
          for (int s = 0; s < Rows::kSlots; ++s) {
            ahead[s] = static_cast<int>(rule.position(tile.first_query + query[s]) - key) - Rows::lane_key();
          }
          rows.change_scores(
              [&](float x, int s, int k) { return x - slope[s] * fabsf(static_cast<float>(ahead[s] - k)); });
        }
        if (partly) {
          typename K::BoolMask::Word words[Rows::kSlots][K::BoolMask::kWords];
          each_word([&](int s, int w) { words[s][w] = mask.word(t % 2, mask_row_of(s), w) >> Rows::lane_key(); });
          rows.change_scores([&](float x, int s, int k) {
            constexpr int kWordKeys = K::BoolMask::kWordKeys;
            return words[s][k / kWordKeys] >> (k % kWordKeys) & 1 ? x : -kInfinity;
          });
        }
        if (adds_mask(a)) {
          const int left = walk.keys_left(key, kTile.keys) - Rows::lane_key();
          int64_t row[Rows::kSlots];
#pragma unroll
          for (int s = 0; s < Rows::kSlots; ++s) {
            const int r = opaque(flat.clamped(Rows::row(first_row, s)));
            row[s] = opaque(mask_row(a, tile.sequence, flat.head(r), tile.first_query + query[s]) +
                            (key + Rows::lane_key()) * a.mask.key);
          }
          with_mask_type<T>(a.mask, [&](const auto *added) {
            rows.change_scores(
                [&](float x, int s, int k) { return k < left ? x + to_float(added[row[s] + k * a.mask.key]) : x; });
          });
        }
      }
      if (static_cast<unsigned>(t - first_whole) >= whole) {
        hide_unseen<kTile.keys>(rows, tile, key, work.keys.end, [&](int s) { return query[s]; });
      }
      rows.raise_peaks(exp_scale);
      if (!bounded) rows.relate_to_peaks(exp_scale);
    }
    const T *const value_tile = pipe.values_ready();
    if (visible) rows.accumulate(value_tile, exp_scale, !bounded);
    if (bool_mask) mask.pack((t + 1) % 2, walk.key(t + 1), walk.keys_left(walk.key(t + 1), kTile.keys), mask_start);
  }
  pipe.finish();
  rows.join_lanes();
  const Results<T> results{a, splits, work, flat};
  if constexpr (kTile.key_waves > 1) {
    merge_rows<T, kDim, K>(results, rows, key_wave, exp_scale);
  } else {
    finish_rows(results, rows, first_row);
  }
}

template <class T, int kDim, Path kPath, bool kPlain>
__global__ void __launch_bounds__((kThreads<kPath, kDim>), (kOccupancy<kPath, kDim>))
    attention_kernel(const Attention a, const Numbering numbering, const Splits splits) {
  if constexpr (kHasTile<kPath, kDim>) attention<T, kDim, kPath, kPlain>(a, numbering, splits);
}

template <class T, int kDim, Path kPath> void launch_tiles(const Attention &a, const Splits &splits, void *stream) {
  const DeviceProperties device = device_properties();
  const AttentionTile tile = tile_of(kPath, device.arch, kDim);
  const int64_t tiles = row_tiles(a, tile_rows(tile, device.arch));
  const int64_t workgroups = tiles * a.batch * a.kv_heads * splits.count;
  if (workgroups > INT32_MAX) throw std::runtime_error("mqa_attention: more than 2^31 tiles of query rows");
  const Numbering numbering{make_divider(splits.count), make_divider(tiles), make_divider(a.kv_heads),
                            make_divider(a.group)};
  // Nothing but visibility between scores and softmax, and a scale that a multiply-add can apply: |x * scale| stays
  // finite.
  const bool plain = a.softcap == 0 && !a.mask.data && !a.alibi.data && a.logit_scale == 1 && a.exp_scale * kLog2E <= 1;
  auto *kernel = attention_kernel<T, kDim, kPath, false>;
  if constexpr (kPath != Path::kDecodeBlocks) {  // decoding hides what the plain kernel would save
    if (plain) kernel = attention_kernel<T, kDim, kPath, true>;
  }
  launch({"mqa_attention", dim3(static_cast<unsigned>(workgroups)), static_cast<unsigned>(threads(tile, device.arch)),
          stream, lds_bytes_of(kPath, device.arch, kDim)},
         kernel, a, numbering, splits);
}

// Instantiates what belongs to this shard.
template <class T, int kDim, int kNumber>
bool launch_if(bool wanted, const Attention &a, Path path, const Splits &splits, void *stream) {
  if constexpr (kNumber % ROCFORGE_SHARDS == ROCFORGE_SHARD) {
    if (!wanted) return false;
    if (path == Path::kDecode) {
      launch_tiles<T, kDim, Path::kDecode>(a, splits, stream);
    } else if (path == Path::kDecodeBlocks) {
      launch_tiles<T, kDim, Path::kDecodeBlocks>(a, splits, stream);
    } else {
      launch_tiles<T, kDim, Path::kPrefill>(a, splits, stream);
    }
    return true;
  }
  return false;
}

}  // namespace

static_assert(kAttentionShards == ROCFORGE_SHARDS, "cmake/gpu.cmake and csrc/hip/attention.h must agree");

template <>
bool launch_attention_shard<ROCFORGE_SHARD>(const Attention &a, Path path, int dim, const Splits &splits,
                                            void *stream) {
  const bool half = a.type == Element::kHalf;
  return launch_if<f16, 64, 0>(half && dim == 64, a, path, splits, stream) ||
         launch_if<f16, 128, 1>(half && dim == 128, a, path, splits, stream) ||
         launch_if<f16, 256, 2>(half && dim == 256, a, path, splits, stream) ||
         launch_if<bf16, 256, 3>(!half && dim == 256, a, path, splits, stream) ||
         launch_if<bf16, 64, 4>(!half && dim == 64, a, path, splits, stream) ||
         launch_if<bf16, 128, 5>(!half && dim == 128, a, path, splits, stream);
}

}  // namespace rocforge::gpu
