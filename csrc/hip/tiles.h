// Tile shapes of the matrix kernels, one table for each architecture.
#pragma once

#include "hip/gpu/types.h"

namespace rocforge::gpu {

// A workgroup of attention. Either all waves share a tile of keys and each owns rows (prefill), or all waves own the
// same rows and each streams keys of its own, merged in the end (decode).
struct AttentionTile {
  int row_waves, key_waves;  // one of them is 1
  int row_blocks;            // blocks of rows (of the matrix instruction) that a wave owns
  int keys;                  // of a tile of keys and values in LDS
  int stages;                // tiles in LDS at once
  bool query_in_lds;         // else in registers
  int occupancy;             // workgroups a compute unit should hold

  constexpr int waves() const { return row_waves * key_waves; }
};

// Rows of a block: what one matrix product takes.
constexpr int attention_block(Arch arch) { return arch == Arch::gfx9 || arch == Arch::gfx10 ? wave_size(arch) : 16; }

// `dim`: the head size, rounded up to 64, 128 or 256. No waves: no tile fits the registers.
constexpr AttentionTile prefill_tile(Arch arch, int dim) {
  switch (arch) {
    case Arch::gfx90a:
    case Arch::gfx942:
    case Arch::gfx950:
      return dim <= 64    ? AttentionTile{4, 1, 2, 64, 1, false, 2}
             : dim <= 128 ? AttentionTile{4, 1, 2, 32, 1, false, 2}
                          : AttentionTile{8, 1, 1, 32, 1, false, 1};
    case Arch::gfx11:  // queries take twice the registers here: lanes l and l + 16 hold the same
      return dim <= 64 ? AttentionTile{4, 1, 1, 32, 1, false, 1} : AttentionTile{4, 1, 1, 16, 1, true, 1};
    case Arch::gfx12:
      return dim <= 64    ? AttentionTile{4, 1, 1, 32, 1, false, 1}
             : dim <= 128 ? AttentionTile{4, 1, 1, 32, 1, true, 1}
                          : AttentionTile{4, 1, 1, 16, 1, true, 1};
    case Arch::sm80:
    case Arch::sm90:
      return dim <= 128 ? AttentionTile{4, 1, 2, 64, 2, true, 2} : AttentionTile{4, 1, 1, 32, 2, true, 2};
    default:
      return dim <= 64 ? AttentionTile{4, 1, 1, 16, 1, true, 1} : AttentionTile{};
  }
}

constexpr AttentionTile decode_tile(Arch arch, int dim) {
  switch (arch) {
    case Arch::gfx90a:
    case Arch::gfx942:
    case Arch::gfx950:
      return dim <= 128 ? AttentionTile{1, 4, 2, 16, 1, false, 1} : AttentionTile{1, 2, 1, 16, 1, false, 1};
    case Arch::gfx11:
    case Arch::gfx12:
      return dim <= 64    ? AttentionTile{1, 4, 1, 16, 1, false, 1}
             : dim <= 128 ? AttentionTile{1, 4, 1, 16, 1, true, 1}
                          : prefill_tile(arch, dim);  // a wave alone has no registers for 256 values of each key
    case Arch::sm80:
    case Arch::sm90:
      return dim <= 128 ? AttentionTile{1, 4, 2, 16, 3, false, 2} : AttentionTile{1, 2, 1, 16, 3, false, 2};
    default:
      return prefill_tile(arch, dim);
  }
}

constexpr int tile_rows(const AttentionTile &tile, Arch arch) {
  return tile.row_waves * tile.row_blocks * attention_block(arch);
}
constexpr int threads(const AttentionTile &tile, Arch arch) { return tile.waves() * wave_size(arch); }

// Waves that own the same rows meet in LDS: their results, a block of rows at a time as floats [block][stride], and for
// every row each wave's peak and sum, and a factor.
constexpr int attention_merge_stride(int dim) { return dim + 8; }
constexpr size_t attention_merge_bytes(const AttentionTile &tile, Arch arch, int dim) {
  if (tile.key_waves == 1) return 0;
  const int states = (2 * tile.key_waves + 1) * tile_rows(tile, arch);
  return (states + tile.key_waves * attention_block(arch) * attention_merge_stride(dim)) * sizeof(float);
}

// LDS for queries, keys and values (16-bit), and afterwards for the waves' results to be merged.
constexpr size_t attention_lds_bytes(const AttentionTile &tile, Arch arch, int dim) {
  const int pad = is_nvidia(arch) ? 0 : 8;  // of rows; transposed values: their run
  const int run = arch == Arch::gfx90a || arch == Arch::gfx942 || arch == Arch::gfx950 ? 4 : 8;
  const size_t queries = tile.query_in_lds ? tile_rows(tile, arch) * (dim + pad) * 2 : 0;
  const size_t keys = tile.keys * (dim + pad) * 2;
  const size_t values = is_nvidia(arch) ? keys : dim * (tile.keys + run) * 2;
  const size_t tiles = tile.key_waves * tile.stages * (keys + values);
  const size_t merged = attention_merge_bytes(tile, arch, dim);
  return queries + tiles > merged ? queries + tiles : merged;
}

// Keys and values that are Q8_0 blocks: a row's words of 16 bytes in LDS, an odd number so that neighbouring rows lie
// in different banks. It begins anywhere at an even address.
constexpr int packed_row_words(int dim) { return (14 + dim / 32 * 34 + 15) / 16 | 1; }
// Packed tiles of a wave in LDS at once: of keys and of values, as many ahead of their use as the tile has stages
// beside the one in use; one where registers hold what is ahead.
constexpr int packed_tiles(Arch arch, int stages) { return is_nvidia(arch) ? 2 * (stages - 1) : 1; }

// LDS for one tile of decoded keys and values, and the packed ones.
constexpr size_t attention_blocks_lds_bytes(AttentionTile tile, Arch arch, int dim) {
  const size_t packed = tile.key_waves * packed_tiles(arch, tile.stages) * tile.keys * packed_row_words(dim) * 16;
  tile.stages = 1;
  return attention_lds_bytes(tile, arch, dim) + packed;
}

// A workgroup of linear's few rows. Its waves share the packed rows and the weights of each.
struct LinearTile {
  int row_waves;    // waves side by side, each with 16 packed rows of its own
  int depth_waves;  // waves that share 16 packed rows, each with pieces of their weights
  int columns;      // rows of the input
  int stages;       // pieces of a wave in LDS at once, where copies are asynchronous
};

// `wide`: for more columns than one matrix product takes, where that is worth a kernel of its own.
constexpr LinearTile linear_tile(Arch arch, bool wide) {
  switch (arch) {
    case Arch::sm80:
    case Arch::sm90:
      return wide ? LinearTile{2, 4, 16, 3} : LinearTile{1, 8, 8, 3};
    case Arch::gfx9:
    case Arch::gfx10:
      return {1, 8, 4, 1};
    default:
      return {1, 8, 16, 1};
  }
}

// Where linear_tile has two answers.
template <Arch arch, class Input> inline constexpr bool kHasWideTile = is_nvidia(arch) && sizeof(Input) == 2;

constexpr int linear_threads(const LinearTile &tile, Arch arch) {
  return tile.row_waves * tile.depth_waves * wave_size(arch);
}

// Pieces of a wave in LDS at once, of `stage_bytes` each: as many as the tile wants and LDS has room for.
constexpr int linear_stages(const LinearTile &tile, Arch arch, size_t stage_bytes) {
  // Of sm90's LDS two workgroups have to share.
  const size_t room = lds_bytes(arch == Arch::sm90 ? Arch::sm80 : arch);
  int stages = tile.stages;
  while (stages > 1 && tile.row_waves * tile.depth_waves * stages * stage_bytes > room) --stages;
  return stages;
}

// LDS for these, and afterwards for the sums of all waves.
constexpr size_t linear_lds_bytes(const LinearTile &tile, Arch arch, size_t stage_bytes) {
  const size_t waves = tile.row_waves * tile.depth_waves;
  const size_t pieces = waves * linear_stages(tile, arch, stage_bytes) * stage_bytes;
  const size_t sums = waves * 16 * tile.columns * sizeof(float);
  return pieces > sums ? pieces : sums;
}

}  // namespace rocforge::gpu
