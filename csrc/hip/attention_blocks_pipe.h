// Tiles of keys and values that are stored as Q8_0 blocks: packed rows come to LDS, from where they go, decoded and
// rounded to T, to the tiles that the matrix cores read. To the kernel it is a pipe as in attention_pipe.h.
//
// Bytes keep their place within 16-byte words: a row begins as far behind the first word as in memory.
#pragma once

#include "formats/q8_0.h"
#include "hip/attention_pipe.h"
#include "hip/gpu/packed.h"
#include "hip/tiles.h"

namespace rocforge::gpu {

// Rows of Q8_0 blocks of one head: `dims` values in each, at even addresses.
struct BlockSource {
  const uint8_t *first;
  int64_t stride;  // in bytes
  int dims;

  ROCFORGE_DEVICE const uint8_t *row(int64_t i) const { return first + i * stride; }
  // How far row i begins behind a multiple of 16.
  ROCFORGE_DEVICE int shift(int64_t i) const {
    const auto low_bits = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(first));
    return static_cast<int>((low_bits + static_cast<uint32_t>(i) * static_cast<uint32_t>(stride)) & 15);
  }
};

// The packed rows of a tile of keys or of values in LDS.
template <class T, int kDim, int kKeys, int kThreads> struct PackedTile {
  using Block = formats::Q8_0::Block;
  static constexpr int kStride = packed_row_words(kDim);             // of a row, in words of 16 bytes
  static constexpr int kWords = kKeys * kStride;                     // in LDS
  static constexpr int kLoads = (kWords + kThreads - 1) / kThreads;  // of a thread
  using Registers = PackedWord[kLoads];

  // move(word of the tile, its address, the bytes of the row it belongs to); rows from `valid` on are empty.
  template <class Move>
  static ROCFORGE_DEVICE void each_word(const BlockSource &source, int64_t key, int valid, int thread, Move move) {
    const int row_bytes = source.dims / formats::Q8_0::block_size * static_cast<int>(sizeof(Block));
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int item = thread + i * kThreads, row = item / kStride;
      if (kWords % kThreads != 0 && item >= kWords) break;
      const uint8_t *const begin = source.row(key + (row < valid ? row : 0));
      const uint8_t *const words = begin - source.shift(key + (row < valid ? row : 0));
      move(i, item, words + item % kStride * 16, PackedRange{begin, row < valid ? begin + row_bytes : words});
    }
  }

  // 4 * kQuads values from d on, within one block, of the row whose bytes begin at byte `at` of the tile.
  template <int kQuads>
  static ROCFORGE_DEVICE Vec<uint32_t, 2 * kQuads> decode(const uint32_t *tile, uint32_t at, uint32_t d) {
    const uint32_t block = at + d / formats::Q8_0::block_size * sizeof(Block);
    const float scale = to_float(reinterpret_cast<const f16 *>(tile)[block / 2]);
    const uint32_t first = block + sizeof(f16) + d % formats::Q8_0::block_size, bits = first % 4 * 8;
    // Words at multiples of 4, the last one that a level is in.
    uint32_t words[kQuads + 1];
#pragma unroll
    for (int i = 0; i < kQuads; ++i) words[i] = tile[first / 4 + i];
    words[kQuads] = tile[(first + 4 * kQuads - 1) / 4];
    Vec<uint32_t, 2 * kQuads> values;
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      const auto levels = static_cast<uint32_t>((words[i] | static_cast<uint64_t>(words[i + 1]) << 32) >> bits);
      values[2 * i] = pack<T>(float_from_int8(levels, 0) * scale, float_from_int8(levels, 1) * scale);
      values[2 * i + 1] = pack<T>(float_from_int8(levels, 2) * scale, float_from_int8(levels, 3) * scale);
    }
    return values;
  }
};

template <class Layout, int kDim, int kKeys, int kStages, int kThreads, bool kWholeWorkgroup> class BlocksPipe {
  using T = typename Layout::T;
  using Packed = PackedTile<T, kDim, kKeys, kThreads>;
  using Rows = typename Layout::template Rows<kDim>;
  static constexpr int kRun = Layout::kRun;
  using Columns = PaddedColumns<kKeys, kRun>;
  static constexpr int kKeyTile = Rows::size(kKeys);
  static constexpr int kValueTile = Layout::kTransposesValues ? Columns::size(kDim) : kKeyTile;
  // Packed tiles on their way: in LDS where copies are asynchronous, else one of each in registers, and one in LDS that
  // is decoded.
  static constexpr int kAhead = kHasAsyncCopies ? kStages - 1 : 1;
  static constexpr int kPackedTiles = packed_tiles(kArch, kStages);

 public:
  static constexpr int kSize = kKeyTile + kValueTile + kPackedTiles * Packed::kWords * 8;  // in values
  static constexpr int kSpare = 0;  // the decoded tiles are not used before the first keys_ready()

  ROCFORGE_DEVICE BlocksPipe(T *lds, const BlockSource &keys, const BlockSource &values, const Walk &walk, int thread)
      : key_tile_(lds),
        value_tile_(lds + kKeyTile),
        packed_(reinterpret_cast<PackedWord *>(lds + kKeyTile + kValueTile)),
        keys_(keys),
        values_(values),
        walk_(walk),
        thread_(thread) {}

  ROCFORGE_DEVICE void start() {
#pragma unroll 1
    for (int i = 0; i < kAhead; ++i) {
      if constexpr (kHasAsyncCopies) {
        copy(i);
      } else {
        load(keys_, key_words_, 0);
        load(values_, value_words_, 0);
      }
    }
  }
  ROCFORGE_DEVICE const T *keys_ready() {
    const PackedWord *packed = packed_ + tile_ % kAhead * 2 * Packed::kWords;
    if constexpr (kHasAsyncCopies) {
      copies_arrived<kAhead - 1>();
    } else {
      packed = put(key_words_);
      load(keys_, key_words_, tile_ + 1);
    }
    sync_group<kWholeWorkgroup>();  // now all are done with the tile before, too
    decode_rows(key_tile_, keys_, packed);
    sync_group<kWholeWorkgroup>();
    return key_tile_;
  }
  ROCFORGE_DEVICE const T *values_ready() {
    const PackedWord *packed = packed_ + (tile_ % kAhead * 2 + 1) * Packed::kWords;
    if constexpr (!kHasAsyncCopies) {
      packed = put(value_words_);
      load(values_, value_words_, tile_ + 1);
      sync_group<kWholeWorkgroup>();
    }
    if constexpr (Layout::kTransposesValues) {
      decode_columns(packed);
    } else {
      decode_rows(value_tile_, values_, packed);
    }
    sync_group<kWholeWorkgroup>();
    if constexpr (kHasAsyncCopies) copy(tile_ + kAhead);  // over what was decoded just now
    ++tile_;
    return value_tile_;
  }
  ROCFORGE_DEVICE void finish() { copies_arrived<0>(); }

 private:
  ROCFORGE_DEVICE void copy(int tile) {
    if (tile < walk_.tiles) {
      const int64_t key = walk_.key(tile);
      PackedWord *const packed = packed_ + tile % kAhead * 2 * Packed::kWords;
      const auto to = [&](PackedWord *words) {
        return [=](int, int item, const uint8_t *word, PackedRange row) { copy_packed_async(words + item, word, row); };
      };
      const int valid = walk_.keys_left(key, kKeys);
      Packed::each_word(keys_, key, valid, thread_, to(packed));
      Packed::each_word(values_, key, valid, thread_, to(packed + Packed::kWords));
    }
    copies_issued();
  }
  ROCFORGE_DEVICE void load(const BlockSource &source, typename Packed::Registers &words, int tile) {
    if (tile >= walk_.tiles) return;
    const int64_t key = walk_.key(tile);
    Packed::each_word(
        source, key, walk_.keys_left(key, kKeys), opaque(thread_),
        [&](int i, int, const uint8_t *word, PackedRange row) { words[i] = load_packed_word(word, row); });
  }
  ROCFORGE_DEVICE const PackedWord *put(const typename Packed::Registers &words) {
#pragma unroll
    for (int i = 0; i < Packed::kLoads; ++i) {
      const int item = thread_ + i * kThreads;
      if (Packed::kWords % kThreads == 0 || item < Packed::kWords) packed_[item] = words[i];
    }
    return packed_;
  }

  // Where row `row` begins in the packed tile under way, in bytes.
  ROCFORGE_DEVICE int begin_of(const BlockSource &source, int row) const {
    const int64_t key = walk_.key(tile_);
    return row * Packed::kStride * 16 + (row < walk_.keys_left(key, kKeys) ? source.shift(key + row) : 0);
  }

  ROCFORGE_DEVICE void decode_rows(T *tile, const BlockSource &source, const PackedWord *packed) {
    constexpr int kQuads = 4, kRowItems = kDim / (4 * kQuads), kItems = kKeys * kRowItems;
#pragma unroll
    for (int i = 0; i < (kItems + kThreads - 1) / kThreads; ++i) {
      const int item = opaque(thread_) + i * kThreads, row = item / kRowItems, d = item % kRowItems * 4 * kQuads;
      if (kItems % kThreads != 0 && item >= kItems) break;
      Vec<uint32_t, 2 * kQuads> values = {};
      if (d < source.dims) {
        values = Packed::template decode<kQuads>(reinterpret_cast<const uint32_t *>(packed), begin_of(source, row), d);
      }
      store_chunk(tile + Rows::at(row, d), Chunk{{values[0], values[1], values[2], values[3]}});
      store_chunk(tile + Rows::at(row, d + 8), Chunk{{values[4], values[5], values[6], values[7]}});
    }
  }
  // kRun keys of four values each; neighbouring threads write side by side.
  ROCFORGE_DEVICE void decode_columns(const PackedWord *packed) {
    constexpr int kKeyUnits = kKeys / kRun, kItems = kKeyUnits * kDim / 4;
#pragma unroll
    for (int i = 0; i < (kItems + kThreads - 1) / kThreads; ++i) {
      const int item = opaque(thread_) + i * kThreads, key = item % kKeyUnits * kRun, d = item / kKeyUnits * 4;
      if (kItems % kThreads != 0 && item >= kItems) break;
      Vec<uint32_t, 2> values[kRun] = {};
#pragma unroll
      for (int k = 0; k < kRun; ++k) {
        if (d >= values_.dims) break;
        values[k] =
            Packed::template decode<1>(reinterpret_cast<const uint32_t *>(packed), begin_of(values_, key + k), d);
      }
      store_transposed(values, [&](int j) { return value_tile_ + Columns::at(d + j, key); });
    }
  }

  T *const key_tile_, *const value_tile_;
  PackedWord *const packed_;
  const BlockSource &keys_, &values_;
  const Walk &walk_;
  const int thread_;
  int tile_ = 0;
  typename Packed::Registers key_words_, value_words_;
};

}  // namespace rocforge::gpu
