// Attention on matrix cores: online softmax over tiles of keys and values in LDS.
// Compiled in several shards: this file instantiates the dtype and head sizes of ROCFORGE_SHARD.
#include "hip/attention_pipe.h"
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

// A rescaling of the accumulators waits until the weights have grown by 2^kLazy: they keep their precision, being
// floats, and stay far from the largest float16.
constexpr float kLazy = 8;

// A wave's rows: their accumulators and softmax state. All loops have constant bounds, so that all of it is registers.
template <class T, int kDim, int kRowBlocks, int kTileKeys, bool kQueryInLds> class WaveRows {
 public:
  using Layout = AttentionLayout<T>;
  using Sum = typename Layout::Sum;
  static constexpr int kSlots = kRowBlocks * Layout::kLaneRows;  // rows a lane holds scores of
  static constexpr int kScoreBlocks = kTileKeys / Layout::kKeys;
  static constexpr int kOutBlocks = kDim / Layout::kDims;
  [[maybe_unused]] static constexpr int kValues =
      kRowBlocks * kOutBlocks * (sizeof(Sum) / 4) + 2 * kSlots;  // of a lane, for a merge
  static constexpr int kSumSize = sizeof(Sum) / 4;

  // Row of the tile that slot `s` of this lane belongs to. Slot s is lane row s % kLaneRows of block s / kLaneRows.
  static ROCFORGE_DEVICE int row(int first_row, int s) {
    return first_row + s / Layout::kLaneRows * Layout::kRows + Layout::row(lane_id(), s % Layout::kLaneRows);
  }

  ROCFORGE_DEVICE void clear() {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) peak_[s] = -kInfinity, sum_[s] = 0;
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
      for (int n = 0; n < kOutBlocks; ++n) outs_[m][n] = {};
    }
  }

  ROCFORGE_DEVICE void score(const T *queries, int first_row, const T *keys) {
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
      for (int n = 0; n < kScoreBlocks; ++n) scores_[m][n] = {};
    }
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      typename Layout::Queries q[kRowBlocks];
#pragma unroll
      for (int m = 0; m < kRowBlocks; ++m) {
        if constexpr (kQueryInLds) {
          q[m] = Layout::template queries_in_lds<kDim>(queries, first_row + m * Layout::kRows, c * Layout::kStepDims);
        } else {
          q[m] = queries_[c][m];
        }
      }
      Layout::template add_scores<kDim>(scores_, q, keys, c * Layout::kStepDims);
    }
  }

  // Replaces every score by change(score, slot, k), where k + lane_key() is the key in the tile: k is a constant.
  template <class Change> ROCFORGE_DEVICE void change_scores(Change change) {
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
      for (int n = 0; n < kScoreBlocks; ++n) {
#pragma unroll
        for (int i = 0; i < kSumSize; ++i) {
          float &x = scores_[m][n][i];
          x = change(x, m * Layout::kLaneRows + Layout::lane_row(i), n * Layout::kKeys + Layout::key(0, i));
        }
      }
    }
  }

  static ROCFORGE_DEVICE int lane_key() { return Layout::key(lane_id(), 0); }

  // Scores become weights. kFused: (x - peak) * exp_scale as one multiply-add, for |exp_scale| <= 1.
  template <bool kFused> ROCFORGE_DEVICE void softmax(float exp_scale) {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const int m = s / Layout::kLaneRows, lane_row = s % Layout::kLaneRows;
      float best = peak_[s];
      for_lane_row(m, lane_row, [&](float &x) { best = fmaxf(best, x); });
      best = Layout::over_keys(best, [](float a, float b) { return fmaxf(a, b); });
      if (any((best - peak_[s]) * exp_scale > kLazy)) {
        const float factor = best == -kInfinity ? 1 : fast_exp2((peak_[s] - best) * exp_scale);
        rescale(s, factor);
        peak_[s] = best;
      }
      const float base = peak_[s] == -kInfinity ? 0 : peak_[s];
      const float scaled_base = base * exp_scale;
      float sum = 0;
      for_lane_row(m, lane_row, [&](float &x) {
        x = fast_exp2(kFused ? fmaf(x, exp_scale, -scaled_base) : (x - base) * exp_scale);
        sum += x;
      });
      sum_[s] += sum;
    }
  }

  ROCFORGE_DEVICE void accumulate(const T *values) {
    constexpr int kWeights = Layout::kWeightBlocks;
#pragma unroll
    for (int n = 0; n < kScoreBlocks; n += kWeights) {
      typename Layout::Weight weights[kRowBlocks];
#pragma unroll
      for (int m = 0; m < kRowBlocks; ++m) weights[m] = Layout::weights(&scores_[m][n]);
      Layout::template add_outputs<kDim, kTileKeys>(outs_, weights, values, n * Layout::kKeys);
    }
  }

  // The sums of all lanes of a row.
  ROCFORGE_DEVICE void join_lanes() {
#pragma unroll
    for (int s = 0; s < kSlots; ++s) sum_[s] = Layout::over_keys(sum_[s], [](float a, float b) { return a + b; });
  }

  // To and from LDS [kValues][kWave].
  ROCFORGE_DEVICE void save(float *lds) const {
    int at = lane_id();
    each_value([&](float x) { lds[at] = x, at += kWave; });
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      lds[at] = peak_[s], lds[at + kWave] = sum_[s];
      at += 2 * kWave;
    }
  }
  // Adds what another wave saved for the same rows.
  ROCFORGE_DEVICE void merge(const float *lds, float exp_scale) {
    float own[kSlots], other[kSlots];
    const float *state = lds + (kValues - 2 * kSlots) * kWave + lane_id();
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      const float peak = state[2 * s * kWave], sum = state[(2 * s + 1) * kWave];
      const float best = fmaxf(peak_[s], peak), base = best == -kInfinity ? 0 : best;
      own[s] = fast_exp2((peak_[s] - base) * exp_scale), other[s] = fast_exp2((peak - base) * exp_scale);
      sum_[s] = sum_[s] * own[s] + sum * other[s];
      peak_[s] = best;
    }
    int at = lane_id();
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
      for (int n = 0; n < kOutBlocks; ++n) {
#pragma unroll
        for (int i = 0; i < kSumSize; ++i) {
          const int s = m * Layout::kLaneRows + Layout::lane_row(i);
          outs_[m][n][i] = outs_[m][n][i] * own[s] + lds[at] * other[s];
          at += kWave;
        }
      }
    }
  }

  ROCFORGE_DEVICE void rescale(int slot, float factor) {
    sum_[slot] *= factor;
    const int m = slot / Layout::kLaneRows, lane_row = slot % Layout::kLaneRows;
#pragma unroll
    for (int n = 0; n < kOutBlocks; ++n) {
#pragma unroll
      for (int i = 0; i < kSumSize; ++i) {
        if (Layout::lane_row(i) == lane_row) outs_[m][n][i] *= factor;
      }
    }
  }

  // Stores a slot's outputs as Out to its row of `dims` values, a multiple of 8.
  template <class Out> ROCFORGE_DEVICE void store_row(int slot, Out *row, int dims) const {
    constexpr int kRun = Layout::kOutRun, kLaneRowValues = kSumSize / Layout::kLaneRows;
    const int m = slot / Layout::kLaneRows, lane_row = slot % Layout::kLaneRows;
#pragma unroll
    for (int n = 0; n < kOutBlocks; ++n) {
#pragma unroll
      for (int i = 0; i < kLaneRowValues; i += kRun) {
        const int first = lane_row * kLaneRowValues + i, d = n * Layout::kDims + Layout::dim(lane_id(), first);
        if constexpr (kRun == 1) {
          if (d < dims) row[d] = from_float<Out>(outs_[m][n][first]);
        } else {
          float values[kRun];
#pragma unroll
          for (int j = 0; j < kRun; ++j) values[j] = outs_[m][n][first + j];
          if (d < dims) store(row + d, convert<Out>(values));
        }
      }
    }
  }

  ROCFORGE_DEVICE float peak(int s) const { return peak_[s]; }
  ROCFORGE_DEVICE float sum(int s) const { return sum_[s]; }

  // For kernels that keep them in registers.
  ROCFORGE_DEVICE void load_queries_from_lds(const T *tile) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int m = 0; m < kRowBlocks; ++m) {
        queries_[c][m] = Layout::template queries_in_lds<kDim>(tile, m * Layout::kRows, c * Layout::kStepDims);
      }
    }
  }
  template <class ReadChunk> ROCFORGE_DEVICE void load_queries(int first_row, ReadChunk chunk) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int m = 0; m < kRowBlocks; ++m) {
        queries_[c][m] = Layout::queries(first_row + m * Layout::kRows, c * Layout::kStepDims, chunk);
      }
    }
  }

 private:
  static constexpr int kChunks = kDim / Layout::kStepDims;

  template <class Visit> ROCFORGE_DEVICE void for_lane_row(int m, int lane_row, Visit visit) {
#pragma unroll
    for (int n = 0; n < kScoreBlocks; ++n) {
#pragma unroll
      for (int i = 0; i < kSumSize; ++i) {
        if (Layout::lane_row(i) == lane_row) visit(scores_[m][n][i]);
      }
    }
  }
  template <class Visit> ROCFORGE_DEVICE void each_value(Visit visit) const {
#pragma unroll
    for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
      for (int n = 0; n < kOutBlocks; ++n) {
#pragma unroll
        for (int i = 0; i < kSumSize; ++i) visit(outs_[m][n][i]);
      }
    }
  }

  Sum outs_[kRowBlocks][kOutBlocks];
  Sum scores_[kRowBlocks][kScoreBlocks];
  typename Layout::Queries queries_[kQueryInLds ? 1 : kChunks][kRowBlocks];
  float peak_[kSlots];  // the largest score so far, or a little less; the same in all lanes of a row
  float sum_[kSlots];   // of this lane's weights
};

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
