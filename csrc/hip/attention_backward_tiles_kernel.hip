// Gradients on matrix cores. One kernel makes both passes (attention_backward_tiles.h): the fixed rows of a workgroup
// and the rows that stream by are query rows and keys, or the other way round.
// Compiled in several shards: this file instantiates the dtype and head sizes of ROCFORGE_SHARD.
#include "hip/gpu.h"
// gpu.h first.
#include "hip/attention_backward.h"
#include "hip/attention_backward_wave.h"

namespace rocforge::gpu {
namespace {

template <int dim, Pass pass> constexpr GradientTile kTileHere = gradient_tile(kArch, dim, pass);
template <int dim, Pass pass> constexpr bool kHasTile = kTileHere<dim, pass>.waves > 0;
template <int dim, Pass pass>
constexpr int kThreadsHere = kHasTile<dim, pass> ? threads(kTileHere<dim, pass>, kArch) : kWave;
// Masks and the like take registers that the table does not count with.
template <int dim, Pass pass, bool plain>
constexpr int kOccupancy = kHasTile<dim, pass> && plain ? kTileHere<dim, pass>.occupancy : 1;

template <class Element, int dim, Pass pass> struct GradientKernel {
  using T = Element;
  static constexpr int kDim = dim;
  static constexpr bool kOwnsKeys = owns_keys(pass), kFirst = sums_first(pass), kSecond = sums_second(pass);
  static constexpr GradientTile kTile = kTileHere<dim, pass>;
  static constexpr GradientLds kLds{kTile, kArch, dim, pass};
  static constexpr int kThreads = kThreadsHere<dim, pass>;
  static constexpr int kFixed = fixed_rows(kTile, kArch);
  using Layout = AttentionLayout<T>;
  using Rows = typename Layout::template Rows<kDim>;
  static_assert(Rows::size(kFixed) == kLds.fixed_tile && Rows::size(kTile.streamed) == kLds.row_tile &&
                    kFixed == kTile.waves * kTile.blocks * Layout::kRows,
                "attention_backward_tiles.h, for the host, says the same as the layouts");
  static_assert(kLds.bytes(kTile, kArch, dim, pass) + 32 * kTile.streamed + 64 <= lds_bytes(kArch),
                "the tile is too large for this architecture");
};

template <class T>
ROCFORGE_DEVICE Source<T> source(const Heads &h, int64_t batch, int64_t head, int64_t row, int dims) {
  return {static_cast<const T *>(h.data) + batch * h.batch + head * h.head + row * h.row, h.row, dims, h.aligned};
}

// Which rows a workgroup owns: `first` .. `first + count - 1` of the sequence.
struct FixedRows {
  Sequence sequence;
  int64_t first;
  int count;
};

// Tiles of packed sequences: sequence i starts at tile cuts[i] / rows + i.
ROCFORGE_DEVICE FixedRows fixed_rows_of(const Attention &a, bool keys, int64_t batch, int64_t tile, int rows) {
  Sequence sequence = padded_sequence(a, a.cu_seqlens_q ? 0 : batch);
  // Keys past their row's length get a gradient, too: 0.
  int64_t length = keys ? a.keys : a.rows;
  if (a.cu_seqlens_q) {
    const int32_t *const cuts = keys ? a.cu_seqlens_k : a.cu_seqlens_q;
    const auto first_tile_of = [&](int64_t i) { return clamp(cuts[i], 0, length) / rows + i; };
    int64_t low = 0, high = a.sequences;
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      if (first_tile_of(middle) <= tile) {
        low = middle;
      } else {
        high = middle;
      }
    }
    sequence = packed_sequence(a, low);
    tile -= first_tile_of(low);
    length = keys ? sequence.rule.keys : sequence.rule.queries;
  }
  const int64_t first = tile * rows, left = first < 0 ? 0 : length - first;
  return {sequence, first, static_cast<int>(clamp(left, 0, rows))};
}
int64_t fixed_tiles(const Attention &a, bool keys, int rows) {
  const int64_t length = keys ? a.keys : a.rows;
  return a.cu_seqlens_q ? length / rows + a.sequences : (length + rows - 1) / rows;
}

// What a weight takes of a query row: lse in powers of 2, and delta. A row that sees nothing has weights 0.
using RowTerms = Vec<float, 2>;
ROCFORGE_DEVICE RowTerms row_terms(const AttentionGradients &g, int64_t row, bool valid) {
  const float lse = valid ? g.a.lse[row] : -kInfinity;
  if (lse == -kInfinity) return {{kInfinity, 0}};
  return {{lse * kLog2E, static_cast<const float *>(g.numbers.delta)[row]}};
}

template <class T, class Use> ROCFORGE_DEVICE void with_mask_type(const Mask &mask, Use use) {
  if (mask.type == Element::kBool) {
    use([&](float x, int64_t at) { return static_cast<const bool *>(mask.data)[at] ? x : -kInfinity; });
  } else if (mask.type == Element::kFloat) {
    use([&](float x, int64_t at) { return x + static_cast<const float *>(mask.data)[at]; });
  } else {
    use([&](float x, int64_t at) { return x + to_float(static_cast<const T *>(mask.data)[at]); });
  }
}

template <class T, int kDim, Pass kPass, bool kPlain>
ROCFORGE_DEVICE void gradients(const AttentionGradients &g, const GradientSplits &splits) {
  using K = GradientKernel<T, kDim, kPass>;
  using Rows = GradientRows<K>;
  constexpr GradientTile kTile = K::kTile;
  constexpr bool kKeys = K::kOwnsKeys;  // the fixed rows are keys
  const Attention &a = g.a;

  // Workgroups are numbered by tile (those with the most to do under a causal rule first), batch row, head and split.
  const auto fixed_heads = static_cast<uint32_t>(kKeys ? a.kv_heads : a.kv_heads * a.group);
  uint32_t item = blockIdx.x;
  const int split = static_cast<int>(item % splits.count);
  item /= splits.count;
  const int64_t fixed_head = item % fixed_heads;
  item /= fixed_heads;
  const int64_t batch = item % static_cast<uint32_t>(a.batch);
  item /= static_cast<uint32_t>(a.batch);
  const auto tiles = static_cast<uint32_t>(gridDim.x / splits.count / fixed_heads / static_cast<uint32_t>(a.batch));
  const FixedRows fixed = fixed_rows_of(a, kKeys, batch, kKeys ? item : tiles - 1 - item, K::kFixed);
  if (fixed.count <= 0) return;
  const Sequence &sequence = fixed.sequence;
  const AttentionRule &rule = sequence.rule;
  const int64_t kv_head = kKeys ? fixed_head : fixed_head / a.group;
  const KeyRange owned{fixed.first, fixed.first + fixed.count};

  // What streams by: keys that any of the rows sees, or query rows that see any of the keys, of each head.
  const KeyRange seen = !kKeys                    ? rule.visible(owned.begin, owned.end - 1)
                        : owned.begin < rule.keys ? KeyRange{rule.first_row(owned), rule.end_row(owned)}
                                                  : KeyRange{0, 0};
  const int head_pairs =
      seen.empty() ? 0 : static_cast<int>((seen.end - seen.begin + kTile.streamed - 1) / kTile.streamed);
  const int64_t all_pairs = static_cast<int64_t>(head_pairs) * (kKeys ? a.group : 1);
  const auto first_pair = static_cast<uint32_t>(all_pairs * split / splits.count);
  const int pairs = static_cast<int>(all_pairs * (split + 1) / splits.count - first_pair);
  struct Place {
    int64_t head, row;
    int left;
  };
  const auto place = [&](int i) -> Place {
    // In 32 bits: a 64-bit division takes a GPU some hundred instructions.
    const auto pairs_of_head = static_cast<uint32_t>(head_pairs);
    const uint32_t pair = first_pair + i, head = kKeys ? pair / pairs_of_head : 0;
    const int64_t row = seen.begin + static_cast<int64_t>(pair - head * pairs_of_head) * kTile.streamed;
    const int64_t left = seen.end - row;
    return {kKeys ? kv_head * a.group + head : fixed_head, row,
            left < kTile.streamed ? static_cast<int>(left) : kTile.streamed};
  };
  const auto streamed = [&](int i) -> StreamedRows<T> {
    const Place p = place(i);
    if constexpr (kKeys) {
      return {source<T>(a.query, sequence.batch, p.head, sequence.query_begin + p.row, a.head_dim),
              source<T>(g.grad_out, sequence.batch, p.head, sequence.query_begin + p.row, a.value_dim), p.left};
    } else {
      return {source<T>(a.key, sequence.batch, kv_head, sequence.key_begin + p.row, a.head_dim),
              source<T>(a.value, sequence.batch, kv_head, sequence.key_begin + p.row, a.value_dim), p.left};
    }
  };

  const int wave = wave_id() % kTile.waves, group = wave_id() / kTile.waves;
  const int first_row = wave * kTile.blocks * K::Layout::kRows, from = group * Rows::kStreamed;
  T *const lds = dynamic_lds<T>();
  using Stream = std::conditional_t<K::Layout::kTransposesValues, StagedStream<K, decltype(streamed)>,
                                    AsyncStream<K, decltype(streamed)>>;
  Stream stream(lds + K::kLds.fixed, pairs, streamed);
  stream.start();

  Rows rows;
  rows.clear();
  const int valid = kKeys ? static_cast<int>(clamp(rule.keys - owned.begin, 0, fixed.count)) : fixed.count;
  const int64_t fixed_begin = owned.begin + (kKeys ? sequence.key_begin : sequence.query_begin);
  const Source<T> first = source<T>(kKeys ? a.key : a.query, sequence.batch, fixed_head, fixed_begin, a.head_dim);
  const Source<T> second =
      source<T>(kKeys ? a.value : g.grad_out, sequence.batch, fixed_head, fixed_begin, a.value_dim);
  const auto chunk_of = [&](const Source<T> &s) {
    return [&](int r, int d) {
      return s.aligned ? s.aligned_chunk(s.row(r < valid ? r : 0), d, d, r < valid)
                       : s.any_chunk(s.row(r < valid ? r : 0), d, d, r < valid);
    };
  };
  if constexpr (kTile.fixed_in_lds) {
#pragma unroll 2
    for (int i = threadIdx.x; i < K::kFixed * kDim / 8; i += K::kThreads) {
      const int r = i / (kDim / 8), d = i % (kDim / 8) * 8;
      store_chunk(lds + K::Rows::at(r, d), chunk_of(first)(r, d));
      store_chunk(lds + K::kLds.fixed_tile + K::Rows::at(r, d), chunk_of(second)(r, d));
    }
    // The barrier of the first pair comes before their use.
  } else {
    rows.load_fixed(first_row, chunk_of(first), chunk_of(second));
  }

  // Of a fixed row, when it is a query row; else of the streamed ones, of which two tiles are in use at a time.
  RowTerms own_terms[Rows::kSlots];
  SHARED(RowTerms, streamed_terms, [2][kKeys ? kTile.streamed : 1]);
  using Bounds = Vec<int, 2>;  // the first key of those owned that a row sees, and how many
  SHARED(Bounds, bounds, [2][kKeys ? kTile.streamed : 1]);
#pragma unroll
  for (int s = 0; s < Rows::kSlots; ++s) {
    const int r = Rows::row(first_row, s);
    if constexpr (!kKeys) {
      own_terms[s] = row_terms(g, out_row(a, sequence, fixed_head, owned.begin + (r < valid ? r : 0)), r < valid);
    }
  }
  const auto terms_of_streamed = [&](int i) -> RowTerms {  // of the thread's row of pair i
    if (!kKeys || i >= pairs || threadIdx.x >= kTile.streamed) return {};
    const Place p = place(i);
    const int r = threadIdx.x;
    return row_terms(g, out_row(a, sequence, p.head, p.row + (r < p.left ? r : 0)), r < p.left);
  };

  const float logit_scale = static_cast<float>(a.logit_scale), softcap = static_cast<float>(a.softcap);
  const float exp_scale = static_cast<float>(a.exp_scale) * kLog2E;
  const int lane_streamed = Rows::lane_streamed() + from;
  RowTerms next_terms = terms_of_streamed(0);
  for (int t = 0; t < pairs; ++t) {
    const Place p = place(t);
    const int64_t last_row = p.row + p.left - 1;
    const bool partial = kKeys ? !rule.all_visible(p.row, last_row, owned)
                               : p.left < kTile.streamed ||
                                     !rule.all_visible(owned.begin, owned.end - 1, {p.row, p.row + kTile.streamed});
    if (kKeys && threadIdx.x < kTile.streamed) {
      streamed_terms[t % 2][threadIdx.x] = next_terms;
      if (partial) {
        const KeyRange keys = rule.visible(p.row + threadIdx.x);
        const int begin = static_cast<int>(clamp(keys.begin - owned.begin, 0, K::kFixed));
        bounds[t % 2][threadIdx.x] = {
            {begin, static_cast<int>(clamp(keys.end - owned.begin, begin, K::kFixed)) - begin}};
      }
    }
    const StreamedTiles<T> pair = stream.ready();
    next_terms = terms_of_streamed(t + 1);
    rows.multiply(lds, first_row, pair, from);

    const auto terms = [&](int s, int k) -> RowTerms {
      if constexpr (kKeys) return streamed_terms[t % 2][lane_streamed + k];
      return own_terms[s];
    };
    if constexpr (!kPlain) {
      rows.change([&](float &x, float &grad, int s, int k) {
        x *= logit_scale;
        grad -= terms(s, k)[1];
        if (softcap != 0) {
          const float capped = 1 - 2 * fast_reciprocal(fast_exp2(x * (2 * kLog2E / softcap)) + 1);
          x = softcap * capped;
          grad *= 1 - capped * capped;
        }
      });
      if (a.alibi.data) {
        const float slope = head_number<float>(a.alibi, sequence.batch, p.head);
        const int64_t ahead = kKeys ? rule.position(p.row) - owned.begin : rule.position(owned.begin) - p.row;
        rows.change([&](float &x, float &, int s, int k) {
          const int r = Rows::row(first_row, s), c = lane_streamed + k;
          x -= slope * fabsf(static_cast<float>(static_cast<int>(ahead) + (kKeys ? c - r : r - c)));
        });
      }
      if (a.mask.data) {
        const int64_t start =
            mask_row(a, sequence, p.head, kKeys ? p.row : owned.begin) + (kKeys ? owned.begin : p.row) * a.mask.key;
        // Opaque, or the offsets of all values are kept in registers from one tile to the next.
        const int64_t fixed_step = opaque(kKeys ? a.mask.key : a.mask.row);
        const int64_t step = opaque(kKeys ? a.mask.row : a.mask.key);
        with_mask_type<T>(a.mask, [&](auto masked) {
          rows.change([&](float &x, float &, int s, int k) {
            const int r = Rows::row(first_row, s), c = lane_streamed + k;
            if (r < valid && c < p.left) x = masked(x, start + r * fixed_step + c * step);
          });
        });
      }
    }
    if (partial) {
      if constexpr (kKeys) {
        rows.change([&](float &x, float &, int s, int k) {
          const Bounds b = bounds[t % 2][lane_streamed + k];
          if (static_cast<uint32_t>(Rows::row(first_row, s) - b[0]) >= static_cast<uint32_t>(b[1])) x = -kInfinity;
        });
      } else {
        int begin[Rows::kSlots];
        uint32_t count[Rows::kSlots];
#pragma unroll
        for (int s = 0; s < Rows::kSlots; ++s) {
          const KeyRange keys = rule.visible(owned.begin + Rows::row(first_row, s));
          begin[s] = static_cast<int>(clamp(keys.begin - p.row, 0, kTile.streamed));
          count[s] = static_cast<uint32_t>(clamp(keys.end - p.row, begin[s], kTile.streamed)) - begin[s];
          begin[s] -= lane_streamed;
        }
        rows.change([&](float &x, float &, int s, int k) {
          if (static_cast<uint32_t>(k - begin[s]) >= count[s]) x = -kInfinity;
        });
      }
    }
    rows.change([&](float &x, float &grad, int s, int k) {
      const RowTerms row = terms(s, k);
      x = fast_exp2(fmaf(x, exp_scale, -row[0]));
      grad = x * (kPlain ? grad - row[1] : grad);
    });
    rows.accumulate(pair, from);
  }
  stream.finish();
  rows.finish(static_cast<float>(a.scale));

  if constexpr (kTile.groups > 1) {
    auto *const saved = dynamic_lds<float>() + wave * Rows::kValues * kWave;
#pragma unroll 1
    for (int other = 1; other < kTile.groups; ++other) {
      syncthreads();
      if (group == other) rows.save(saved);
      syncthreads();
      if (group == 0) rows.merge(saved);
    }
    if (group != 0) return;
  }

#pragma unroll
  for (int s = 0; s < Rows::kSlots; ++s) {
    const int r = Rows::row(first_row, s);
    if (r >= fixed.count) continue;
    if constexpr (kKeys) {
      const int64_t all_keys = a.batch * a.kv_heads * a.keys;
      const int64_t at = (sequence.batch * a.kv_heads + kv_head) * a.keys + fixed_begin + r;
      if (splits.count > 1) {
        rows.store_first(s, splits.key + (split * all_keys + at) * a.head_dim, a.head_dim);
        rows.store_second(s, splits.value + (split * all_keys + at) * a.value_dim, a.value_dim);
      } else {
        rows.store_first(s, static_cast<T *>(g.grad_key) + at * a.head_dim, a.head_dim);
        rows.store_second(s, static_cast<T *>(g.grad_value) + at * a.value_dim, a.value_dim);
      }
    } else {
      const int64_t at = out_row(a, sequence, fixed_head, owned.begin + r);
      rows.store_first(s, static_cast<T *>(g.grad_query) + at * a.head_dim, a.head_dim);
    }
  }
}

template <class T, int kDim, Pass kPass, bool kPlain>
__global__ void __launch_bounds__((kThreadsHere<kDim, kPass>), (kOccupancy<kDim, kPass, kPlain>))
    gradient_kernel(const AttentionGradients g, const GradientSplits splits) {
  if constexpr (kHasTile<kDim, kPass>) gradients<T, kDim, kPass, kPlain>(g, splits);
}

template <class T, int kDim, Pass kPass>
void launch_pass(const AttentionGradients &g, const GradientSplits &splits, void *stream) {
  const Attention &a = g.a;
  const Arch arch = device_properties().arch;
  const GradientTile tile = gradient_tile(arch, kDim, kPass);
  const int64_t heads = owns_keys(kPass) ? a.kv_heads : a.kv_heads * a.group;
  const int64_t tiles = fixed_tiles(a, owns_keys(kPass), fixed_rows(tile, arch));
  const int64_t workgroups = tiles * a.batch * heads * splits.count;
  const int64_t streamed = owns_keys(kPass) ? (a.rows / tile.streamed + 1) * a.group : a.keys / tile.streamed;
  if (workgroups > INT32_MAX || streamed > INT32_MAX)
    throw std::runtime_error("mqa_attention_backward: more than 2^31 tiles");
  if (workgroups == 0) return;
  // Nothing but visibility between scores and softmax.
  const bool plain = a.softcap == 0 && !a.mask.data && !a.alibi.data && a.logit_scale == 1;
  auto *const kernel = plain ? gradient_kernel<T, kDim, kPass, true> : gradient_kernel<T, kDim, kPass, false>;
  launch({"mqa_attention_backward", dim3(static_cast<unsigned>(workgroups)), static_cast<unsigned>(threads(tile, arch)),
          stream, GradientLds(tile, arch, kDim, kPass).bytes(tile, arch, kDim, kPass)},
         kernel, g, splits);
}

// Instantiates what belongs to this shard.
template <class T, int kDim, int kNumber>
bool launch_if(bool wanted, const AttentionGradients &g, const GradientSplits &splits, void *stream) {
  if constexpr (kNumber % ROCFORGE_SHARDS == ROCFORGE_SHARD) {
    if (!wanted) return false;
    launch_pass<T, kDim, Pass::kQuery>(g, {1, nullptr, nullptr}, stream);
    if constexpr (keys_in_two_passes(kDim)) {
      launch_pass<T, kDim, Pass::kKey>(g, splits, stream);
      launch_pass<T, kDim, Pass::kValue>(g, splits, stream);
    } else {
      launch_pass<T, kDim, Pass::kBoth>(g, splits, stream);
    }
    return true;
  }
  return false;
}

}  // namespace

static_assert(kGradientShards == ROCFORGE_SHARDS, "cmake/gpu.cmake and csrc/hip/attention_backward.h must agree");

template <>
bool launch_gradient_shard<ROCFORGE_SHARD>(const AttentionGradients &g, const GradientSplits &splits, int dim,
                                           void *stream) {
  const bool half = g.a.type == Element::kHalf;
  return launch_if<f16, 64, 7>(half && dim == 64, g, splits, stream) ||
         launch_if<f16, 128, 6>(half && dim == 128, g, splits, stream) ||
         launch_if<f16, 256, 5>(half && dim == 256, g, splits, stream) ||
         launch_if<bf16, 256, 4>(!half && dim == 256, g, splits, stream) ||
         launch_if<bf16, 64, 3>(!half && dim == 64, g, splits, stream) ||
         launch_if<bf16, 128, 2>(!half && dim == 128, g, splits, stream);
}

}  // namespace rocforge::gpu
