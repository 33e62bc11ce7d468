// Packed rows on their way to a wave: pieces of 256 weights of each of its rows, brought by loads of 16 bytes into a
// part of LDS that is the wave's own, several pieces ahead.
//
// Bytes keep their place within 16-byte words, so that a row may begin anywhere: the shift of a row's piece is the
// distance of its first byte from the word before.
#pragma once

#include <type_traits>

#include "hip/gpu/packed.h"

namespace rocforge::gpu {

inline constexpr int kPieceWeights = 256;

constexpr int largest_power_of_two(int n, int most) {
  int power = 1;
  while (power < most && n % (2 * power) == 0) power *= 2;
  return power;
}

// Formats whose levels lie byte by byte: the levels of the second four of 8 weights are those of the first four in a
// block that begins 4 bytes later.
template <class F, class... Formats> constexpr bool is_one_of(formats::TypeList<Formats...>) {
  return (std::is_same_v<F, Formats> || ...);
}
template <class F>
inline constexpr bool kBytewise =
    is_one_of<F>(formats::TypeList<formats::Q4_0, formats::Q4_1, formats::Q8_0, formats::Q8_1, formats::Q2_K,
                                   formats::Q3_K, formats::Q4_K, formats::Q5_K, formats::Q6_K, formats::Q8_K,
                                   formats::IQ4_NL, formats::IQ4_XS, formats::TQ2_0, formats::MXFP4, formats::NVFP4>{});
// Geometry of a piece in LDS. kAligned: blocks begin at multiples of the largest power of two that divides their size.
template <class F, bool kAligned> struct PieceShape {
  static constexpr int kBytes = kPieceWeights / F::block_size * static_cast<int>(sizeof(typename F::Block));
  static constexpr int kAlign = kAligned ? largest_power_of_two(sizeof(typename F::Block), 16) : 1;
  // The last four levels are read as the first of eight: four bytes more, whatever they are.
  static constexpr int kReadBytes = kBytes + (kBytewise<F> ? 4 : 0);
  static constexpr int kWords = (16 - kAlign + kReadBytes + 15) / 16;  // of a row
  static constexpr int kStride = kWords | 1;                           // odd: neighbouring rows lie in different banks
  static constexpr size_t kStageBytes = 16 * 16 * kStride;             // of 16 rows
};

// The pieces of 16 rows. Four lanes share a row.
template <class F, bool kAligned, int stages> class PieceStream {
  using Shape = PieceShape<F, kAligned>;
  static constexpr int kRowsAtOnce = kWave / 4, kTurns = 16 / kRowsAtOnce, kLoads = (Shape::kWords + 3) / 4;

 public:
  static constexpr int kStages = stages, kStageWords = 16 * Shape::kStride;
  static constexpr int kLdsWords = (kHasAsyncCopies ? kStages : 1) * kStageWords;

  // `rows`: the first packed row of 16, of which `valid` exist; the others are copies of the last.
  ROCFORGE_DEVICE PieceStream(PackedWord *lds, const uint8_t *rows, int64_t row_stride, int valid, int64_t row_bytes)
      : lds_(lds), row_bytes_(row_bytes) {
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      const int row = turn * kRowsAtOnce + lane_id() / 4;
      rows_[turn] = rows + (row < valid ? row : valid - 1) * row_stride;
    }
  }

  // Begins to bring piece `piece` of each row; without async copies into registers, where there is room for one.
  ROCFORGE_DEVICE void request(int64_t piece, int stage) {
    const int64_t first = piece * Shape::kBytes, rest = row_bytes_ - first;
    const int bytes = rest < Shape::kBytes ? static_cast<int>(rest) : Shape::kBytes;
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      const uint8_t *const begin = rows_[turn] + first;
      const uint8_t *const words = begin - shift_of(begin);
#pragma unroll
      for (int i = 0; i < kLoads; ++i) {
        const int word = 4 * i + lane_id() % 4;
        if constexpr (kHasAsyncCopies) {
          if (Shape::kWords % 4 == 0 || word < Shape::kWords) {
            copy_packed_async(slot(turn, word, stage), words + 16 * word, {begin, begin + bytes});
          }
        } else {
          registers_[turn * kLoads + i] = load_packed_word(words + 16 * word, {begin, begin + bytes});
        }
      }
    }
    if constexpr (kHasAsyncCopies) copies_issued();
  }

  // Waits for the piece requested `kAhead` requests before the last one. A syncwave() makes it visible.
  template <int kAhead> ROCFORGE_DEVICE void receive() {
    if constexpr (kHasAsyncCopies) {
      copies_arrived<kAhead>();
    } else {
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
#pragma unroll
        for (int i = 0; i < kLoads; ++i) {
          const int word = 4 * i + lane_id() % 4;
          if (Shape::kWords % 4 == 0 || word < Shape::kWords) *slot(turn, word, 0) = registers_[turn * kLoads + i];
        }
      }
    }
  }

  static ROCFORGE_DEVICE int shift_of(const uint8_t *p) {
    return static_cast<int>(reinterpret_cast<uintptr_t>(p) & (16 - Shape::kAlign));
  }

 private:
  ROCFORGE_DEVICE PackedWord *slot(int turn, int word, int stage) const {
    return lds_ + stage * kStageWords + (turn * kRowsAtOnce + lane_id() / 4) * Shape::kStride + word;
  }

  PackedWord *lds_;
  int64_t row_bytes_;
  const uint8_t *rows_[kTurns];
  PackedWord registers_[kHasAsyncCopies ? 1 : kTurns * kLoads];
};

}  // namespace rocforge::gpu
