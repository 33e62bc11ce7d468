// Attention on matrix cores: online softmax over tiles of keys and values in LDS.
// Compiled in several shards: this file instantiates the dtype and head sizes of ROCFORGE_SHARD.
#include "hip/attention_pipe.h"
#include "hip/attention_wave.h"
#include "hip/attention_work.h"
#include "hip/tiles.h"

namespace rocforge::gpu {
namespace {

constexpr AttentionTile tile_of(Path path, Arch arch, int dim) {
  return path == Path::kDecode ? decode_tile(arch, dim) : prefill_tile(arch, dim);
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
  using Pipe =
      std::conditional_t<Layout::kTransposesValues, StagedPipe<Layout, kDim, kTile.keys, kGroupThreads, kShared>,
                         AsyncPipe<Layout, kDim, kTile.keys, kTile.stages, kGroupThreads, kShared>>;
  using Rows = WaveRows<T, kDim, kTile.row_blocks, kTile.keys, kTile.query_in_lds>;
  static constexpr int kQueryTile = kTile.query_in_lds ? Layout::template Rows<kDim>::size(kRows) : 0;  // in values
  static constexpr int kMaskWords = (kTile.keys + 31) / 32;                                             // of a row
  static_assert(attention_lds_bytes(kTile, kArch, kDim) + 2 * kTile.key_waves * kRows * kMaskWords * sizeof(uint32_t) <=
                    lds_bytes(kArch),
                "the tile is too large for this architecture");
  static_assert(kRows == tile_rows(kTile, kArch) &&
                    (kQueryTile + kTile.key_waves * Pipe::kSize) * sizeof(T) <= attention_lds_bytes(kTile, kArch, kDim),
                "tiles.h, for the host, says the same as the layouts");
};

// The bool mask of a tile as bits, bits[row][key / 32], by waves `wave`, `wave` + `waves` .. of those that need it: one
// coalesced load for 32 keys of a row. `start(row)`: where in the mask key 0 of the tile is.
template <int kWords, class Start>
ROCFORGE_DEVICE void pack_mask(uint32_t (*bits)[kWords], const Mask &mask, int rows, int keys, int wave, int waves,
                               Start start) {
  constexpr int kParts = kWave / 32;  // words that a wave packs at once
  const int part = lane_id() / 32;
  for (int first = wave * kParts; first < rows * kWords; first += waves * kParts) {
    const int i = first + part, row = i / kWords, key = i % kWords * 32 + lane_id() % 32;
    const bool wanted = i < rows * kWords;
    const bool keep = wanted && key < keys && static_cast<const bool *>(mask.data)[start(row) + key * mask.key];
    const auto word = static_cast<uint32_t>(ballot(keep) >> 32 * part);
    if (wanted && lane_id() % 32 == 0) bits[row][i % kWords] = word;
  }
}

template <class T, class Use> ROCFORGE_DEVICE void with_mask_type(const Mask &mask, Use use) {
  if (mask.type == Element::kFloat) {
    use(static_cast<const float *>(mask.data));
  } else {
    use(static_cast<const T *>(mask.data));
  }
}

template <class T>
ROCFORGE_DEVICE Source<T> source(const Heads &h, int64_t batch, int64_t head, int64_t row, int dims) {
  return {static_cast<const T *>(h.data) + batch * h.batch + head * h.head + row * h.row, h.row, dims, h.aligned};
}

template <class T, int kDim, Path kPath, bool kPlain>
ROCFORGE_DEVICE void attention(const Attention &a, uint32_t tiles, const Splits &splits) {
  using K = AttentionKernel<T, kDim, kPath>;
  using Rows = typename K::Rows;
  using QueryTile = typename K::Layout::template Rows<kDim>;
  constexpr AttentionTile kTile = K::kTile;
  // Workgroups are numbered by batch row, head, tile of rows (those with the most keys first) and split.
  const auto kv_heads = static_cast<uint32_t>(a.kv_heads);
  uint32_t item = blockIdx.x;
  const int split = item % splits.count;
  item /= splits.count;
  const uint32_t tile_number = tiles - 1 - item % tiles;
  item /= tiles;
  const uint32_t kv_head = item % kv_heads, batch = item / kv_heads;
  const RowTile tile = row_tile(a, batch, kv_head, tile_number, K::kRows);
  if (tile.rows <= 0) return;
  const Sequence &sequence = tile.sequence;
  const AttentionRule &rule = sequence.rule;
  const KeyRange keys =
      share(rule.visible(tile.first_query, tile.last_query), split, splits.count, kTile.keys * kTile.key_waves);

  const int row_wave = wave_id() % kTile.row_waves, key_wave = wave_id() / kTile.row_waves;
  const int first_row = row_wave * K::kWaveRows;
  // Queries of flat row r of the tile; rows past the end read as zeros.
  const auto query_of = [&](int r) { return (tile.first_head + r) / a.group; };
  const auto head_of = [&](int r) { return tile.kv_head * a.group + (tile.first_head + r) % a.group; };
  const Source<T> queries = source<T>(a.query, sequence.batch, 0, sequence.query_begin + tile.first_query, a.head_dim);
  const auto with_query_chunks = [&](auto use) {  // use(chunk), where chunk(r, d) is values d .. d + 7
    const auto row_pointer = [&](int r) {
      return queries.first + (r < tile.rows ? head_of(r) * a.query.head + query_of(r) * a.query.row : 0);
    };
    if (queries.aligned) {
      use([&](int r, int d) { return queries.aligned_chunk(row_pointer(r), d, d, r < tile.rows); });
    } else {
      use([&](int r, int d) { return queries.any_chunk(row_pointer(r), d, d, r < tile.rows); });
    }
  };

  T *const lds = dynamic_lds<T>();
  T *query_tile = lds;
  T *const pipe_tiles = lds + K::kQueryTile + key_wave * K::Pipe::kSize;

  Walk walk;
  walk.begin = keys.begin + key_wave * kTile.keys, walk.end = keys.end;
  walk.step = kTile.key_waves * kTile.keys;
  walk.tiles = walk.end > walk.begin ? static_cast<int>((walk.end - walk.begin + walk.step - 1) / walk.step) : 0;
  const Source<T> key_source = source<T>(a.key, sequence.batch, kv_head, sequence.key_begin, a.head_dim);
  const Source<T> value_source = source<T>(a.value, sequence.batch, kv_head, sequence.key_begin, a.value_dim);
  typename K::Pipe pipe(pipe_tiles, key_source, value_source, walk, threadIdx.x % K::kGroupThreads);
  pipe.start();

  Rows rows;
  rows.clear();
  constexpr bool kKeepsQueries = K::kQueryTile == 0, kFromMemory = kKeepsQueries && K::Layout::kTransposesValues;
  if constexpr (kFromMemory) {
    with_query_chunks([&](auto chunk) { rows.load_queries(first_row, chunk); });
  } else {
    // Where each wave keeps all queries, it gets them through LDS of its own.
    constexpr int kCopies = kKeepsQueries ? kWave : kThreads<kPath, kDim>;
    if constexpr (kKeepsQueries) query_tile = pipe.spare();
    with_query_chunks([&](auto chunk) {
#pragma unroll 4
      for (int i = threadIdx.x % kCopies; i < K::kRows * kDim / 8; i += kCopies) {
        const int r = i / (kDim / 8), d = i % (kDim / 8) * 8;
        store_chunk(query_tile + QueryTile::at(r, d), chunk(r, d));
      }
    });
    sync_group<!kKeepsQueries>();
    if constexpr (kKeepsQueries) rows.load_queries_from_lds(query_tile);
  }

  const float logit_scale = static_cast<float>(a.logit_scale), softcap = static_cast<float>(a.softcap);
  const float exp_scale = static_cast<float>(a.exp_scale) * kLog2E;
  int query[Rows::kSlots];    // counted from the tile's first
  float slope[Rows::kSlots];  // of ALiBi
#pragma unroll
  for (int s = 0; s < Rows::kSlots; ++s) {
    const int r = Rows::row(first_row, s) < tile.rows ? Rows::row(first_row, s) : tile.rows - 1;
    query[s] = query_of(r);
    slope[s] = a.alibi.data ? head_number<float>(a.alibi, sequence.batch, head_of(r)) : 0;
  }

  // Rows of the mask that the tile needs: one a query where all heads share them.
  using MaskWords = uint32_t[K::kRows][K::kMaskWords];
  SHARED(MaskWords, mask_bits, [2][kTile.key_waves]);  // one is packed while waves behind still read the other
  const bool bool_mask = !kPlain && a.mask.data && a.mask.type == Element::kBool, one_mask_row = a.mask.head == 0;
  const int mask_rows = one_mask_row ? query_of(tile.rows - 1) + 1 : tile.rows;
  const auto mask_of = [&](int r) {
    return one_mask_row ? mask_row(a, sequence, 0, tile.first_query + r)
                        : mask_row(a, sequence, head_of(r), tile.first_query + query_of(r));
  };

  for (int t = 0; t < walk.tiles; ++t) {
    const int64_t key = walk.key<kTile.keys>(t);
    if (bool_mask) {
      pack_mask<K::kMaskWords>(mask_bits[t % 2][key_wave], a.mask, mask_rows, walk.keys_left(key, kTile.keys), row_wave,
                               kTile.row_waves, [&](int r) { return mask_of(r) + key * a.mask.key; });
    }
    const T *const key_tile = pipe.keys_ready();
    rows.score(query_tile, first_row, key_tile);
    if constexpr (!kPlain) {
      int ahead[Rows::kSlots];  // of the lane's first key
#pragma unroll
      for (int s = 0; s < Rows::kSlots; ++s) {
        ahead[s] = static_cast<int>(rule.position(tile.first_query + query[s]) - key) - Rows::lane_key();
      }
      rows.change_scores([&](float x, int s, int k) {
        x *= logit_scale;
        if (softcap != 0) x = softcap - 2 * softcap * fast_reciprocal(fast_exp2(x * (2 * kLog2E / softcap)) + 1);
        if (a.alibi.data) x -= slope[s] * fabsf(static_cast<float>(ahead[s] - k));
        return x;
      });
      if (bool_mask) {
        uint32_t words[Rows::kSlots][K::kMaskWords];
#pragma unroll
        for (int s = 0; s < Rows::kSlots; ++s) {
          const int r = Rows::row(first_row, s) < tile.rows ? Rows::row(first_row, s) : tile.rows - 1;
#pragma unroll
          for (int w = 0; w < K::kMaskWords; ++w) {
            words[s][w] = mask_bits[t % 2][key_wave][one_mask_row ? query[s] : r][w] >> Rows::lane_key();
          }
        }
        rows.change_scores([&](float x, int s, int k) { return words[s][k / 32] >> (k % 32) & 1 ? x : -kInfinity; });
      } else if (a.mask.data) {
        const int left = walk.keys_left(key, kTile.keys) - Rows::lane_key();
        int64_t row[Rows::kSlots];
#pragma unroll
        for (int s = 0; s < Rows::kSlots; ++s) {
          const int r = opaque(Rows::row(first_row, s));
          row[s] = opaque(mask_row(a, sequence, head_of(r < tile.rows ? r : 0), tile.first_query + query[s]) +
                          (key + Rows::lane_key()) * a.mask.key);
        }
        with_mask_type<T>(a.mask, [&](const auto *mask) {
          rows.change_scores(
              [&](float x, int s, int k) { return k < left ? x + to_float(mask[row[s] + k * a.mask.key]) : x; });
        });
      }
    }
    const KeyRange tile_keys{key, key + kTile.keys};
    if (tile_keys.end > keys.end || !rule.all_visible(tile.first_query, tile.last_query, tile_keys)) {
      int first[Rows::kSlots];
      uint32_t count[Rows::kSlots];
#pragma unroll
      for (int s = 0; s < Rows::kSlots; ++s) {
        const KeyRange visible = rule.visible(tile.first_query + query[s]);
        const int64_t last = visible.end < keys.end ? visible.end : keys.end;
        first[s] = static_cast<int>(clamp(visible.begin - key, 0, kTile.keys));
        count[s] = static_cast<uint32_t>(clamp(last - key, first[s], kTile.keys)) - first[s];
        first[s] -= Rows::lane_key();
      }
      rows.change_scores(
          [&](float x, int s, int k) { return static_cast<uint32_t>(k - first[s]) < count[s] ? x : -kInfinity; });
    }
    rows.template softmax<kPlain>(exp_scale);
    rows.accumulate(pipe.values_ready());
  }
  pipe.finish();
  rows.join_lanes();

  if constexpr (kTile.key_waves > 1) {
    auto *const saved = dynamic_lds<float>();
#pragma unroll 1
    for (int half = kTile.key_waves / 2; half > 0; half /= 2) {
      syncthreads();
      if (key_wave >= half && key_wave < 2 * half) rows.save(saved + (key_wave - half) * Rows::kValues * kWave);
      syncthreads();
      if (key_wave < half) rows.merge(saved + key_wave * Rows::kValues * kWave, exp_scale);
    }
    if (key_wave != 0) return;
  }

  const int64_t all_rows = a.batch * a.kv_heads * a.group * a.rows;
  const bool writes_state = K::Layout::key(lane_id(), 0) == 0;  // one lane of each row
#pragma unroll
  for (int s = 0; s < Rows::kSlots; ++s) {
    const int r = Rows::row(first_row, s);
    if (r >= tile.rows) continue;
    const int64_t head = head_of(r), row = out_row(a, sequence, head, tile.first_query + query[s]);
    if (splits.count > 1) {
      const int64_t at = split * all_rows + row;
      if (writes_state) splits.peaks[at] = rows.peak(s), splits.sums[at] = rows.sum(s);
      if (!keys.empty()) rows.store_row(s, splits.outs + at * a.value_dim, a.value_dim);
    } else {
      const auto end = end_row(a, head, rows.peak(s) * static_cast<float>(a.exp_scale), rows.sum(s));
      if (writes_state) a.lse[row] = end.lse;
      rows.rescale(s, end.factor);
      rows.store_row(s, static_cast<T *>(a.out) + row * a.value_dim, a.value_dim);
    }
  }
}

template <class T, int kDim, Path kPath, bool kPlain>
__global__ void __launch_bounds__((kThreads<kPath, kDim>), (kOccupancy<kPath, kDim>))
    attention_kernel(const Attention a, uint32_t tiles, const Splits splits) {
  if constexpr (kHasTile<kPath, kDim>) attention<T, kDim, kPath, kPlain>(a, tiles, splits);
}

template <class T, int kDim, Path kPath> void launch_tiles(const Attention &a, const Splits &splits, void *stream) {
  const DeviceProperties device = device_properties();
  const AttentionTile tile = tile_of(kPath, device.arch, kDim);
  const int64_t tiles = row_tiles(a, tile_rows(tile, device.arch));
  const int64_t workgroups = tiles * a.batch * a.kv_heads * splits.count;
  if (workgroups > INT32_MAX) throw std::runtime_error("mqa_attention: more than 2^31 tiles of query rows");
  // Nothing but visibility between scores and softmax, and a scale that a multiply-add can apply: |x * scale| stays
  // finite.
  const bool plain = a.softcap == 0 && !a.mask.data && !a.alibi.data && a.logit_scale == 1 && a.exp_scale * kLog2E <= 1;
  auto *const kernel = plain ? attention_kernel<T, kDim, kPath, true> : attention_kernel<T, kDim, kPath, false>;
  launch({"mqa_attention", dim3(static_cast<unsigned>(workgroups)), static_cast<unsigned>(threads(tile, device.arch)),
          stream, attention_lds_bytes(tile, device.arch, kDim)},
         kernel, a, static_cast<uint32_t>(tiles), splits);
}

// Instantiates what belongs to this shard.
template <class T, int kDim, int kNumber>
bool launch_if(bool wanted, const Attention &a, Path path, const Splits &splits, void *stream) {
  if constexpr (kNumber % ROCFORGE_SHARDS == ROCFORGE_SHARD) {
    if (!wanted) return false;
    if (path == Path::kDecode) {
      launch_tiles<T, kDim, Path::kDecode>(a, splits, stream);
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
