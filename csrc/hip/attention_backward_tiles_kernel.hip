// Gradients on matrix cores. One kernel makes both passes (attention_backward_tiles.h): the fixed rows of a workgroup
// and the rows that stream by are query rows and keys, or the other way round.
// Compiled in several shards: this file instantiates the dtype and head sizes of ROCFORGE_SHARD.
#include "hip/gpu.h"
// gpu.h first.
#include "hip/attention_backward.h"
#include "hip/attention_backward_logits.h"

namespace rocforge::gpu {
namespace {

constexpr int kLdsAlign = kArch == Arch::sm90 ? 1024 : 16;  // of AtomRows

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
  static ROCFORGE_DEVICE T *lds() { return dynamic_lds<T, kLdsAlign>(); }
  using Layout = GradientLayout<T>;
  using Rows = typename Layout::template Rows<kDim>;
  static_assert(Rows::size(kFixed) == kLds.fixed_tile && Rows::size(kTile.streamed) == kLds.row_tile &&
                    kFixed == kTile.waves * kTile.blocks * Layout::kRows,
                "attention_backward_tiles.h, for the host, says the same as the layouts");
  static_assert(kLds.bytes(kTile, kArch, dim, pass) + 32 * kTile.streamed + 64 <= lds_bytes(kArch),
                "the tile is too large for this architecture");
};

// The rows of a workgroup, which stay: to LDS, where the barrier of the first pair comes before their use, or
// registers.
template <class K, class Rows>
ROCFORGE_DEVICE void keep_fixed(const AttentionGradients &g, const GradientWork<K> &work, Rows &rows, int first_row) {
  constexpr int kDim = K::kDim;
  const int valid = work.valid();
  const Source<typename K::T> first = work.first_fixed(g), second = work.second_fixed(g);
  const auto chunk_of = [&](const Source<typename K::T> &s) {
    return [&](int r, int d) {
      return s.aligned ? s.aligned_chunk(s.row(r < valid ? r : 0), d, d, r < valid)
                       : s.any_chunk(s.row(r < valid ? r : 0), d, d, r < valid);
    };
  };
  if constexpr (K::kTile.fixed_in_lds) {
    auto *const lds = K::lds();
#pragma unroll 2
    for (int i = threadIdx.x; i < K::kFixed * kDim / 8; i += K::kThreads) {
      const int r = i / (kDim / 8), d = i % (kDim / 8) * 8;
      store_chunk(lds + K::Rows::at(r, d), chunk_of(first)(r, d));
      store_chunk(lds + K::kLds.fixed_tile + K::Rows::at(r, d), chunk_of(second)(r, d));
    }
  } else {
    rows.load_fixed(first_row, chunk_of(first), chunk_of(second));
  }
}

// Groups of waves bring their sums together in the first of them: true there.
template <class K, class Rows> ROCFORGE_DEVICE bool merge_groups(Rows &rows, int group, int wave) {
  if constexpr (K::kTile.groups > 1) {
    float *const saved = reinterpret_cast<float *>(K::lds()) + wave * Rows::kValues * kWave;
#pragma unroll 1
    for (int other = 1; other < K::kTile.groups; ++other) {
      syncthreads();
      if (group == other) rows.save(saved);
      syncthreads();
      if (group == 0) rows.merge(saved);
    }
  }
  return group == 0;
}

template <class K, class Rows>
ROCFORGE_DEVICE void write(const AttentionGradients &arguments, const GradientSplits &splits,
                           const GradientWork<K> &work, Rows &rows, int first_row) {
  using T = typename K::T;
  const AttentionGradients &g = reread(arguments);
  const Attention &a = g.a;
  const int lane = opaque(static_cast<int>(threadIdx.x)) % kWave;  // not kept from before
#pragma unroll
  for (int s = 0; s < Rows::kSlots; ++s) {
    const int r = Rows::row(first_row, s, lane);
    if (r >= work.count()) continue;
    if constexpr (K::kOwnsKeys) {
      const int64_t all_keys = a.batch * a.kv_heads * a.keys;
      const int64_t at = (work.sequence.batch * a.kv_heads + work.head) * a.keys + work.first_row() + r;
      if (splits.count > 1) {
        rows.store_first(s, splits.key + (work.split * all_keys + at) * a.head_dim, a.head_dim);
        rows.store_second(s, splits.value + (work.split * all_keys + at) * a.value_dim, a.value_dim);
      } else {
        rows.store_first(s, static_cast<T *>(g.grad_key) + at * a.head_dim, a.head_dim);
        rows.store_second(s, static_cast<T *>(g.grad_value) + at * a.value_dim, a.value_dim);
      }
    } else {
      const int64_t at = out_row(a, work.sequence, work.head, work.owned.begin + r);
      rows.store_first(s, static_cast<T *>(g.grad_query) + at * a.head_dim, a.head_dim);
    }
  }
}

template <class K, bool kPlain>
ROCFORGE_DEVICE void gradients(const AttentionGradients &g, const GradientSplits &splits) {
  using T = typename K::T;
  using Rows = GradientRows<K>;
  constexpr GradientTile kTile = K::kTile;
  constexpr bool kKeys = K::kOwnsKeys;  // the fixed rows are keys
  const GradientWork<K> work(g, splits.count);
  if (work.count() <= 0) return;

  const int wave = wave_id() % kTile.waves, group = wave_id() / kTile.waves;
  const int first_row = wave * kTile.blocks * K::Layout::kRows, from = group * Rows::kStreamed;
  const int first_streamed = Rows::lane_streamed() + from;
  T *const lds = K::lds();
  const auto streamed = [&](int i) { return work.streamed(g, i); };
  using Stream = std::conditional_t<K::Layout::kTransposesValues, StagedStream<K, decltype(streamed)>,
                                    AsyncStream<K, decltype(streamed)>>;
  Stream stream(lds + K::kLds.fixed, work.pairs, streamed);
  stream.start();
  Rows rows;
  rows.clear();
  keep_fixed(g, work, rows, first_row);

  // Of a fixed row, when it is a query row; else of the streamed ones, of which two tiles are in use at a time.
  RowTerms own_terms[Rows::kSlots];
  SHARED(RowTerms, streamed_terms, [2][kKeys ? kTile.streamed : 1]);
  SHARED(SeenKeys, streamed_seen, [2][kKeys ? kTile.streamed : 1]);
  if constexpr (!kKeys) {
#pragma unroll
    for (int s = 0; s < Rows::kSlots; ++s) own_terms[s] = work.own_terms(g, Rows::row(first_row, s));
  }
  const auto terms_of_streamed = [&](int i) -> RowTerms {  // of the thread's row of pair i
    if (!kKeys || i >= work.pairs || threadIdx.x >= kTile.streamed) return {};
    return work.streamed_terms(g, i, threadIdx.x);
  };

  const float exp_scale = static_cast<float>(g.a.exp_scale) * kLog2E;
  RowTerms next_terms = terms_of_streamed(0);
  for (int t = 0; t < work.pairs; ++t) {
    const auto place = work.place(t);
    const bool partial = work.partial(place);
    if (kKeys && threadIdx.x < kTile.streamed) {
      const int r = threadIdx.x;
      streamed_terms[t % 2][r] = next_terms;
      if (partial) streamed_seen[t % 2][r] = seen_keys<K::kFixed>(work.sequence.rule, place.row + r, work.owned.begin);
    }
    const StreamedTiles<T> pair = stream.ready();
    next_terms = terms_of_streamed(t + 1);
    rows.multiply(lds, first_row, pair, from);

    const auto terms = [&](int s, int k) -> RowTerms {
      if constexpr (kKeys) return streamed_terms[t % 2][first_streamed + k];
      return own_terms[s];
    };
    rows.scores_done();
    if constexpr (!kPlain) {
      rows.all_done();
      make_logits(reread(g), work, place, rows, first_row, first_streamed, terms);
    }
    if (partial) {
      hide_unseen(work, place, rows, first_row, first_streamed,
                  [&](int k) { return streamed_seen[t % 2][first_streamed + k]; });
    }
    rows.change([&](float &x, float &, int s, int k) { x = fast_exp2(fmaf(x, exp_scale, -terms(s, k)[0])); });
    rows.accumulate_second(pair, from);
    if constexpr (kPlain) rows.grads_done();
    rows.change([&](float &x, float &grad, int s, int k) { grad = x * (kPlain ? grad - terms(s, k)[1] : grad); });
    rows.accumulate_first(pair, from);
    rows.all_done();
  }
  stream.finish();
  rows.finish(static_cast<float>(reread(g).a.scale));
  if (merge_groups<K>(rows, group, wave)) write(g, splits, work, rows, first_row);
}

template <class T, int kDim, Pass kPass, bool kPlain>
__global__ void __launch_bounds__((kThreadsHere<kDim, kPass>), (kOccupancy<kDim, kPass, kPlain>))
    gradient_kernel(const AttentionGradients g, const GradientSplits splits) {
  if constexpr (kHasTile<kDim, kPass>) gradients<GradientKernel<T, kDim, kPass>, kPlain>(g, splits);
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
