// What decode_rows passes through LDS, each wave through a part of its own: packed blocks on their way in, which begin
// at any byte and are read in pieces of a few bytes, and values on their way out. Memory sees 16 bytes a lane without
// gaps.
#pragma once

#include "hip/gpu/packed.h"

namespace rocforge::gpu {

inline constexpr bool kAligned = formats::kAlignedBlocks;

// Groups of 8 weights that a thread decodes. Rows of blocks have whole fours of them; two plain values or more are one
// load anyway.
template <class Format> constexpr int kThreadGroups = Format::is_plain ? 2 : 4;
// Threads that share a block.
template <class Format> constexpr int kBlockLanes = Format::block_size / (8 * kThreadGroups<Format>);

// The blocks of a wave: together where they lie side by side in one row, else each one by itself. Bytes keep their
// place within 16-byte words, and with it their alignment.
template <class Format, bool kOneRow> struct Stage {
  using Block = typename Format::Block;
  static constexpr int kBlockBytes = sizeof(Block), kWaveBlocks = kWave / kBlockLanes<Format>;
  static constexpr int kLanes = kOneRow ? kWave : kBlockLanes<Format>;  // that bring blocks together
  static constexpr int kBytes = kLanes / kBlockLanes<Format> * kBlockBytes;
  static constexpr int kAlign = kAligned ? (kBlockBytes | 16) & -(kBlockBytes | 16) : 1;
  static constexpr int kWords = (16 - kAlign + kBytes + 15) / 16, kTurns = (kWords + kLanes - 1) / kLanes;
  static constexpr int kWaveWords = kWave / kLanes * kWords;

  // Brings `count` blocks that begin at `blocks`, both the same in kLanes neighbouring lanes, to those lanes' part of
  // the wave's. Returns where the first one is.
  static ROCFORGE_DEVICE const Block *bring(PackedWord *lds, const uint8_t *blocks, int count) {
    const int shift = static_cast<int>(reinterpret_cast<uintptr_t>(blocks) & (16 - kAlign)), lane = lane_id() % kLanes;
    const PackedRange range{blocks, blocks + count * kBlockBytes};
    PackedWord *const slot = lds + lane_id() / kLanes * kWords;
    PackedWord words[kTurns];
#pragma unroll
    for (int i = 0; i < kTurns; ++i) words[i] = load_packed_word(blocks - shift + 16 * (i * kLanes + lane), range);
#pragma unroll
    for (int i = 0; i < kTurns; ++i) {
      const int word = i * kLanes + lane;
      if (kWords % kLanes == 0 || word < kWords) slot[word] = words[i];
    }
    syncwave();
    return reinterpret_cast<const Block *>(reinterpret_cast<const uint8_t *>(slot) + shift);
  }
};

// Stores the 8 * kGroups values of each lane to the wave's output, of which `count` exist.
template <class Out, int kGroups>
ROCFORGE_DEVICE void store_wave(Out *out, PackedWord *lds, const float (&values)[kGroups][8], int count) {
  constexpr int kChunk = 16 / sizeof(Out);       // values in 16 bytes
  constexpr int kChunks = 8 * kGroups / kChunk;  // of a lane: 2, 4 or 8
  // Chunk c lies at c ^ swizzle(c): neighbouring lanes meet different banks when they write and when they read.
  const auto swizzle = [](int chunk) { return chunk >> 3 & (kChunks - 1); };
  const int lane = lane_id(), first = lane * kChunks ^ swizzle(lane * kChunks);
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    float chunk[kChunk];
#pragma unroll
    for (int j = 0; j < kChunk; ++j) chunk[j] = values[c * kChunk / 8][c * kChunk % 8 + j];
    lds[first ^ c] = bits_as<PackedWord>(convert<Out>(chunk));
  }
  syncwave();
  PackedWord chunks[kChunks];
#pragma unroll
  for (int c = 0; c < kChunks; ++c) chunks[c] = lds[c * kWave + (lane ^ swizzle(lane) ^ swizzle(c * kWave))];
  Out *const lane_out = out + lane * kChunk;
  const int lane_count = count - lane * kChunk;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    constexpr int kStep = kWave * kChunk;
    if (c * kStep < lane_count) store_streaming(lane_out + c * kStep, bits_as<Vec<Out, kChunk>>(chunks[c]));
  }
}

// 16-byte words of LDS that a wave needs: for its blocks, then for its values.
template <class Format, class Out, bool kOneRow> constexpr int wave_words() {
  constexpr int kOutWords = kWave * kThreadGroups<Format> * 8 * sizeof(Out) / 16;
  if constexpr (Format::is_plain) {
    return kOutWords;
  } else {
    constexpr int kIn = Stage<Format, kOneRow>::kWaveWords;
    return kIn > kOutWords ? kIn : kOutWords;
  }
}

}  // namespace rocforge::gpu
