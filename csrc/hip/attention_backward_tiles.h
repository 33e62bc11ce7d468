// Tile shapes of attention's backward, one table for each architecture.
//
// A workgroup owns fixed rows and lets tiles of other rows stream by:
//   pass     fixed     streamed    sums
//   kQuery   Q, dO     K, V        dQ += dS K
//   kBoth    K, V      Q, dO       dK += dS^T Q, dV += P^T dO
//   kKey     K, V      Q, dO       dK alone  } where the sums of both do not fit the registers
//   kValue   K         Q, dO       dV alone  }
#pragma once

#include "hip/tiles.h"

namespace rocforge::gpu {

enum class Pass { kQuery, kBoth, kKey, kValue };

constexpr bool owns_keys(Pass pass) { return pass != Pass::kQuery; }
constexpr bool sums_first(Pass pass) { return pass != Pass::kValue; }  // dS times the first of the streamed
constexpr bool sums_second(Pass pass) { return pass == Pass::kBoth || pass == Pass::kValue; }

struct GradientTile {
  int waves;          // that own fixed rows
  int groups;         // of so many waves, for the same fixed rows: each takes its share of every streamed tile
  int blocks;         // of fixed rows (of the matrix instruction) that a wave owns
  int streamed;       // rows of a streamed tile
  int stages;         // tiles in LDS at once
  bool fixed_in_lds;  // else in registers
  int occupancy;      // workgroups a compute unit should hold
};

// `dim`: the head size, rounded up to 64, 128 or 256. No waves: no matrix instructions, or registers for none.
constexpr GradientTile gradient_tile(Arch arch, int dim, Pass pass) {
  switch (arch) {
    case Arch::gfx90a:
    case Arch::gfx942:
    case Arch::gfx950:
      if (dim <= 64) return {4, 1, 2, 32, 1, false, 2};
      if (dim <= 128) return {4, 1, pass == Pass::kQuery ? 2 : 1, 32, 1, false, 2};
      return {4, 1, 1, 16, 1, false, 1};
    case Arch::gfx11:
    case Arch::gfx12:
      if (dim <= 64) return {4, 1, 1, arch == Arch::gfx11 ? 16 : 32, 1, true, 1};
      if (dim <= 128) return {4, 1, 1, 16, 1, true, 1};
      return {2, 1, 1, 16, 1, true, 1};
    case Arch::sm90:  // four waves multiply together
      if (dim <= 64)
        return pass == Pass::kQuery ? GradientTile{8, 1, 1, 64, 2, true, 2} : GradientTile{4, 2, 1, 256, 2, true, 1};
      if (dim > 128)
        return pass == Pass::kQuery ? GradientTile{8, 1, 1, 32, 2, true, 1} : GradientTile{4, 2, 1, 64, 2, true, 1};
      return pass == Pass::kQuery ? GradientTile{4, 1, 1, 64, 2, true, 2} : GradientTile{4, 2, 1, 128, 2, true, 1};
    case Arch::sm80:
      if (dim <= 64) return {4, 1, pass == Pass::kQuery ? 2 : 1, 64, 2, true, 2};
      if (dim > 128) return {4, 1, 1, 16, 2, true, 1};
      return pass == Pass::kQuery ? GradientTile{4, 1, 2, 32, 2, true, 2} : GradientTile{4, 2, 1, 64, 2, true, 1};
    default:
      return {};
  }
}

// The passes over keys: one for both gradients, or one for each.
constexpr bool keys_in_two_passes(int dim) { return dim > 128; }

constexpr int fixed_rows(const GradientTile &tile, Arch arch) {
  return tile.waves * tile.blocks * attention_block(arch);
}
constexpr int threads(const GradientTile &tile, Arch arch) { return tile.waves * tile.groups * wave_size(arch); }

// Where things lie in LDS, in 16-bit values. Tiles lie there as rows, for products over the head size; AMD's matrix
// instructions want those that are summed over their rows transposed, too.
struct GradientLds {
  int fixed_tile, row_tile, column_tile;  // sizes
  int fixed, stream;                      // sizes of the two parts

  constexpr GradientLds(const GradientTile &tile, Arch arch, int dim, Pass pass)
      : fixed_tile(0), row_tile(0), column_tile(0), fixed(0), stream(0) {
    const bool along = is_nvidia(arch);
    const int pad = along ? 0 : 8, run = wave_size(arch) == 64 && arch != Arch::gfx9 ? 4 : 8;
    fixed_tile = fixed_rows(tile, arch) * (dim + pad);
    row_tile = tile.streamed * (dim + pad);
    column_tile = along ? 0 : dim * (tile.streamed + run);
    fixed = (tile.fixed_in_lds ? 2 : 0) * fixed_tile;
    stream = tile.stages * (2 * row_tile + (sums_first(pass) + sums_second(pass)) * column_tile);
  }
  // In the end the groups' sums, float32, take the place of all that.
  constexpr size_t bytes(const GradientTile &tile, Arch arch, int dim, Pass pass) const {
    const size_t tiles = (fixed + stream) * 2;
    const size_t sums = (tile.groups - 1) * static_cast<size_t>(fixed_rows(tile, arch)) * dim * 4 *
                        (sums_first(pass) + sums_second(pass));
    return tiles > sums ? tiles : sums;
  }
};

}  // namespace rocforge::gpu
