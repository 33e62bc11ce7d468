// How a wave holds the two products of attention: scores S = Q K^T and outputs O = P V.
//
// Where the registers of a product's result are those of the second operand of the next one (all AMD layouts), a wave
// computes S^T = K Q^T and O^T = V^T P^T: a lane then holds scores of one query row, and the softmax is mostly within
// the lane. Where they are those of the first operand (NVIDIA), it computes S and O as they are written.
//
// Operands come from tiles in LDS: queries, keys, and NVIDIA's values as rows; the other values transposed.
#pragma once

#include "hip/gpu/tile_moves.h"
#include "hip/mma.h"

namespace rocforge::gpu {

// Eight 16-bit values. Whole words, here and in the operands that are kept: a compiler that sees single 16-bit values
// gives each of them a register.
using Chunk = Vec<uint32_t, 4>;
template <class Operand> using WordsOf = Vec<uint32_t, sizeof(Operand) / 4>;

template <class T> ROCFORGE_DEVICE Chunk load_chunk(const T *p) {
  return load<4>(reinterpret_cast<const uint32_t *>(p));
}
template <class T> ROCFORGE_DEVICE void store_chunk(T *p, const Chunk &chunk) {
  store(reinterpret_cast<uint32_t *>(p), chunk);
}

// How rows of kDim values lie in LDS, so that the lanes of an access, which touch one chunk of neighbouring rows or
// neighbouring chunks of one, meet different banks. Padding costs LDS; in exchange the places of a lane's accesses
// differ by constants, which instructions hold, and not by registers.
template <int kDim> struct PaddedRows {
  static constexpr int size(int rows) { return rows * (kDim + 8); }
  static ROCFORGE_DEVICE int at(int row, int d) { return row * (kDim + 8) + d; }
};
// The chunks of a row change places with its number, eight of them among each other or, where kDim is no multiple of 64
// but of 32, four.
template <int kDim> struct SwizzledRows {
  static constexpr bool kOfEight = kDim % 64 == 0;
  static constexpr int kMoved = kOfEight ? 7 * 8 : 3 * 8;  // bits of d that change
  static_assert(kDim % 32 == 0, "chunks change places within a row");
  static constexpr int size(int rows) { return rows * kDim; }
  static ROCFORGE_DEVICE int at(int row, int d) {
    return row * kDim + (d ^ ((kOfEight ? row : row >> 1) * 8 & kMoved));
  }
  // at(row + rows, d + dims) for at(row, d): d below 16, the others multiples of 16. What a lane keeps for all its
  // accesses is then one number, and few differ in more than a constant.
  static ROCFORGE_DEVICE int ahead(int at, int rows, int dims) {
    return (at ^ (dims & kMoved)) + (dims & ~kMoved) + rows * kDim;
  }
};

// Atoms of eight rows by 64 values, as sm90's matrix cores read them from LDS; those of the same rows are neighbours.
template <int kDim> struct AtomRows {
  static_assert(kDim % 64 == 0, "whole atoms");
  static constexpr int size(int rows) { return rows * kDim; }
  static ROCFORGE_DEVICE int at(int row, int d) {
    return row / 8 * (8 * kDim) + d / 64 * 512 + row % 8 * 64 + (d % 64 ^ row % 8 * 8);
  }
  // See SwizzledRows.
  static ROCFORGE_DEVICE int ahead(int at, int rows, int dims) {
    return (at ^ dims % 64) + dims / 64 * 512 + rows * kDim;
  }
};

// Transposed: kKeys values of one d side by side, read kRun at a time.
template <int kKeys, int kRun> struct PaddedColumns {
  static constexpr int size(int dims) { return dims * (kKeys + kRun); }
  static ROCFORGE_DEVICE int at(int d, int key) { return d * (kKeys + kRun) + key; }
};

// S^T = K Q^T.
template <class M> struct ScoresAcross {
  using T = typename M::Element;
  using Sum = typename M::C;
  using Query = typename M::B;
  using Weight = typename M::B;
  template <int kDim> using Rows = PaddedRows<kDim>;
  static constexpr bool kTransposesValues = true;
  static constexpr int kRows = M::kN, kKeys = M::kM, kDims = M::kM;  // of a product
  static constexpr int kLaneRows = 1;                                // rows whose scores a lane holds
  static constexpr int kDepth = M::kK;                               // keys of a product of outputs
  static constexpr int kRun = M::kRun < 8 ? M::kRun : 8;             // values of one access to transposed values
  // Operands of short runs are read in pairs, 8 values of a lane for two steps in depth: which k is which does not
  // matter as long as queries and keys agree.
  static constexpr int kSteps = M::kRun < 8 ? 8 / M::kRun : 1;
  static constexpr int kStepDims = M::kK * kSteps;

  static ROCFORGE_DEVICE int row(int lane, int) { return M::c_col(lane, 0); }
  static ROCFORGE_DEVICE constexpr int lane_row(int) { return 0; }  // which of the lane's rows value i belongs to
  static ROCFORGE_DEVICE int key(int lane, int i) { return M::c_row(lane, i); }
  static ROCFORGE_DEVICE int dim(int lane, int i) { return M::c_row(lane, i); }
  // Values of an output, neighbours in d, from a multiple of it on.
  static constexpr int kOutRun = M::kC == 4 ? 4 : std::is_same_v<M, WmmaGfx11<T>> ? 1 : 8;

  template <class Combine> static ROCFORGE_DEVICE float over_keys(float x, Combine combine ROCFORGE_SITE) {
#pragma unroll
    for (int mask = kWave / 2; mask >= kRows; mask /= 2) x = combine(x, shuffle_xor(x, mask ROCFORGE_PASS_SITE));
    return x;
  }

  struct Queries {
    WordsOf<Query> step[kSteps];
  };

  // One operand a step; `chunk(row, d)` gives values d .. d + 7 of a row.
  template <class Words, class ReadChunk>
  static ROCFORGE_DEVICE void read(Words (&steps)[kSteps], int row, int first_k, int d, ReadChunk chunk) {
    constexpr int kWords = sizeof(Words) / 4;
#pragma unroll
    for (int c = 0; c < kWords * kSteps / 4; ++c) {
      const Chunk words = chunk(row, d + first_k * kSteps + 8 * c);
#pragma unroll
      for (int j = 0; j < 4; ++j) steps[(4 * c + j) / kWords][(4 * c + j) % kWords] = words[j];
    }
  }
  template <class ReadChunk> static ROCFORGE_DEVICE Queries queries(int row, int d, ReadChunk chunk) {
    Queries q;
    read(q.step, row + M::b_col(lane_id(), 0), M::b_k(lane_id(), 0), d, chunk);
    return q;
  }
  template <int kDim> static ROCFORGE_DEVICE Queries queries_in_lds(const T *tile, int row, int d) {
    return queries(row, d, [&](int r, int at) { return load_chunk(tile + PaddedRows<kDim>::at(r, at)); });
  }

  // Adds the scores of all blocks of rows with keys 0 .. kBlocks * kKeys - 1 of the tile, over kStepDims values from d.
  template <int kDim, int kRowBlocks, int kBlocks>
  static ROCFORGE_DEVICE void add_scores(Sum (&scores)[kRowBlocks][kBlocks], const Queries (&queries)[kRowBlocks],
                                         const T *tile, int d) {
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) {
      WordsOf<typename M::A> keys[kSteps];
      read(keys, n * kKeys + M::a_row(lane_id(), 0), M::a_k(lane_id(), 0), d,
           [&](int r, int at) { return load_chunk(tile + PaddedRows<kDim>::at(r, at)); });
#pragma unroll
      for (int m = 0; m < kRowBlocks; ++m) {
#pragma unroll
        for (int s = 0; s < kSteps; ++s) {
          scores[m][n] = mma<M>(bits_as<typename M::A>(keys[s]), bits_as<Query>(queries[m].step[s]), scores[m][n]);
        }
      }
    }
  }

  static constexpr int kWeightBlocks = kDepth / kKeys;
  static ROCFORGE_DEVICE Weight weights(const Sum *scores) {
    const Sum &s = scores[0];
    if constexpr (std::is_same_v<M, WmmaGfx11<T>>) {
      // Lane l holds the even or the odd keys and needs all of them; lane l ^ 16 has the others.
      Vec<uint32_t, 4> own;
#pragma unroll
      for (int i = 0; i < 4; ++i) own[i] = pack<T>(s[2 * i], s[2 * i + 1]);
      const auto other = shuffle_xor(own, 16);
      const bool odd = lane_id() >= 16;
      Vec<uint32_t, 8> words;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint32_t even_keys = odd ? other[i] : own[i], odd_keys = odd ? own[i] : other[i];
        words[2 * i] = (even_keys & 0xffff) | odd_keys << 16;
        words[2 * i + 1] = even_keys >> 16 | (odd_keys & 0xffff0000);
      }
      return bits_as<Weight>(words);
    } else {
      float values[M::kC];
#pragma unroll
      for (int i = 0; i < M::kC; ++i) values[i] = s[i];
      return convert<T>(values);
    }
  }

  // Adds to the outputs of all blocks of rows what kDepth keys from `key` on contribute.
  template <int kDim, int kTileKeys, int kRowBlocks, int kBlocks>
  static ROCFORGE_DEVICE void add_outputs(Sum (&outs)[kRowBlocks][kBlocks], const Weight (&weights)[kRowBlocks],
                                          const T *tile, int key) {
#pragma unroll
    for (int n = 0; n < kBlocks; ++n) {
      WordsOf<typename M::A> words;
#pragma unroll
      for (int i = 0; i < M::kA; i += kRun) {
        const int at =
            PaddedColumns<kTileKeys, kRun>::at(n * kDims + M::a_row(lane_id(), i), key + M::a_k(lane_id(), i));
        const auto run = load<kRun / 2>(reinterpret_cast<const uint32_t *>(tile + at));
#pragma unroll
        for (int j = 0; j < kRun / 2; ++j) words[i / 2 + j] = run[j];
      }
      const auto values = bits_as<typename M::A>(words);
#pragma unroll
      for (int m = 0; m < kRowBlocks; ++m) outs[m][n] = mma<M>(values, weights[m], outs[m][n]);
    }
  }
};

template <class T> ROCFORGE_DEVICE uint32_t pair_of(T low, T high) {
  return low.bits | static_cast<uint32_t>(high.bits) << 16;
}

// S = Q K^T, for mma.sync: 16 rows, 8 keys, 16 deep.
template <class M, template <int> class TileRows = SwizzledRows> struct ScoresAlong {
  using T = typename M::Element;
  using Sum = typename M::C;
  using Weight = typename M::A;
  template <int kDim> using Rows = TileRows<kDim>;
  static constexpr bool kTransposesValues = false;
  static constexpr int kRows = M::kM, kKeys = M::kN, kDims = M::kN;
  static constexpr int kLaneRows = 2;
  static constexpr int kDepth = M::kK;
  static constexpr int kRun = 8;
  static constexpr int kStepDims = M::kK;
  static constexpr int kOutRun = 2;

  static ROCFORGE_DEVICE int row(int lane, int r) { return M::c_row(lane, 2 * r); }
  static ROCFORGE_DEVICE constexpr int lane_row(int i) { return i / 2; }
  static ROCFORGE_DEVICE int key(int lane, int i) { return M::c_col(lane, i); }
  static ROCFORGE_DEVICE int dim(int lane, int i) { return M::c_col(lane, i); }

  template <class Combine> static ROCFORGE_DEVICE float over_keys(float x, Combine combine ROCFORGE_SITE) {
    x = combine(x, shuffle_xor(x, 1 ROCFORGE_PASS_SITE));
    return combine(x, shuffle_xor(x, 2 ROCFORGE_PASS_SITE));
  }

  struct Queries {
    WordsOf<typename M::A> words;
  };
  // What one load of four matrices gives: two operands that are neighbours in keys (or in d).
  struct Pair {
    WordsOf<typename M::B> b[2];
  };

  // Rows row .. row + 15, values d .. d + 15.
  template <int kDim> static ROCFORGE_DEVICE Queries queries_in_lds(const T *tile, int row, int d) {
    using Places = Rows<kDim>;
    Queries q;
    if constexpr (kHasMatrixLoads) {
      const int lane = lane_id();
      q.words = load_matrices(tile + Places::ahead(Places::at(lane % 16, lane / 16 * 8), row, d));
    } else {
#pragma unroll
      for (int i = 0; i < M::kA; i += 2) {
        q.words[i / 2] = pair_of(tile[Places::at(row + M::a_row(lane_id(), i), d + M::a_k(lane_id(), i))],
                                 tile[Places::at(row + M::a_row(lane_id(), i), d + M::a_k(lane_id(), i + 1))]);
      }
    }
    return q;
  }

  // Keys key .. key + 15.
  template <int kDim> static ROCFORGE_DEVICE Pair keys(const T *tile, int key, int d) {
    using Places = Rows<kDim>;
    Pair pair;
    if constexpr (kHasMatrixLoads) {
      const int lane = lane_id();
      const int first = Places::at(lane % 8 + lane / 16 * 8, lane / 8 % 2 * 8);
      pair = bits_as<Pair>(load_matrices(tile + Places::ahead(first, key, d)));
    } else {
#pragma unroll
      for (int i = 0; i < 2 * M::kB; i += 2) {
        const int n = i / M::kB, j = i % M::kB, row = key + n * 8 + M::b_col(lane_id(), j);
        pair.b[n][j / 2] = pair_of(tile[Places::at(row, d + M::b_k(lane_id(), j))],
                                   tile[Places::at(row, d + M::b_k(lane_id(), j + 1))]);
      }
    }
    return pair;
  }
  // Values of dims d .. d + 15 and keys key .. key + 15.
  template <int kDim> static ROCFORGE_DEVICE Pair values(const T *tile, int key, int d) {
    using Places = Rows<kDim>;
    Pair pair;
    if constexpr (kHasMatrixLoads) {
      const int lane = lane_id();
      const int first = Places::at(lane % 16, lane / 16 * 8);
      pair = bits_as<Pair>(load_matrices_transposed(tile + Places::ahead(first, key, d)));
    } else {
#pragma unroll
      for (int i = 0; i < 2 * M::kB; i += 2) {
        const int n = i / M::kB, j = i % M::kB, at = d + n * 8 + M::b_col(lane_id(), j);
        pair.b[n][j / 2] = pair_of(tile[Places::at(key + M::b_k(lane_id(), j), at)],
                                   tile[Places::at(key + M::b_k(lane_id(), j + 1), at)]);
      }
    }
    return pair;
  }

  template <int kDim, int kRowBlocks, int kBlocks>
  static ROCFORGE_DEVICE void add_scores(Sum (&scores)[kRowBlocks][kBlocks], const Queries (&queries)[kRowBlocks],
                                         const T *tile, int d) {
#pragma unroll
    for (int n = 0; n < kBlocks; n += 2) {
      const Pair pair = keys<kDim>(tile, n * kKeys, d);
#pragma unroll
      for (int m = 0; m < kRowBlocks; ++m) {
        const auto q = bits_as<typename M::A>(queries[m].words);
        scores[m][n] = mma<M>(q, bits_as<typename M::B>(pair.b[0]), scores[m][n]);
        scores[m][n + 1] = mma<M>(q, bits_as<typename M::B>(pair.b[1]), scores[m][n + 1]);
      }
    }
  }

  static constexpr int kWeightBlocks = kDepth / kKeys;
  static ROCFORGE_DEVICE Weight weights(const Sum *scores) {
    Vec<uint32_t, 4> words;
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = pack<T>(scores[i / 2][i % 2 * 2], scores[i / 2][i % 2 * 2 + 1]);
    return bits_as<Weight>(words);
  }

  template <int kDim, int kTileKeys, int kRowBlocks, int kBlocks>
  static ROCFORGE_DEVICE void add_outputs(Sum (&outs)[kRowBlocks][kBlocks], const Weight (&weights)[kRowBlocks],
                                          const T *tile, int key) {
#pragma unroll
    for (int n = 0; n < kBlocks; n += 2) {
      const Pair pair = values<kDim>(tile, key, n * kDims);
#pragma unroll
      for (int m = 0; m < kRowBlocks; ++m) {
        outs[m][n] = mma<M>(weights[m], bits_as<typename M::B>(pair.b[0]), outs[m][n]);
        outs[m][n + 1] = mma<M>(weights[m], bits_as<typename M::B>(pair.b[1]), outs[m][n + 1]);
      }
    }
  }
};

template <class T>
using AttentionLayout = std::conditional_t<is_nvidia(kArch), ScoresAlong<Mma<T>>, ScoresAcross<Mma<T>>>;

}  // namespace rocforge::gpu
