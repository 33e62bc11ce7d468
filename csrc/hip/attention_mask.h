// The bool mask of attention: packed to bits in LDS a tile ahead of its use.
#pragma once

#include <type_traits>

#include "hip/attention_work.h"

namespace rocforge::gpu {

// Bits of kRows rows and kKeys keys, made by a group of kThreads threads. The loads for a tile are issued a tile before
// its bits are needed: fetch(), and when the tile under way is done with, pack(). In between a thread holds its first
// eight keys, which are all it has where heads share their mask.
template <int kRows, int kKeys, int kThreads> class MaskTile {
  static constexpr int kBytes = kKeys / 8;  // of a row's bits

 public:
  using Word = std::conditional_t<kKeys % 32 == 0, uint32_t, uint16_t>;
  static constexpr int kWordKeys = 8 * sizeof(Word), kWords = kKeys / kWordKeys;
  static constexpr Word kAll = static_cast<Word>(~0);
  static_assert(kKeys % 16 == 0, "whole words");
  using Bits = Word[2][kRows][kWords];  // one tile is packed while waves behind still read the other

  ROCFORGE_DEVICE MaskTile(const Mask &mask, Bits &bits, int thread) : mask_(mask), bits_(bits), thread_(thread) {}

  // `rows` have a mask of their own; `start(row)`: where in the mask key 0 of the sequence is.
  template <class Start> ROCFORGE_DEVICE void set_rows(int rows, Start start) {
    items_ = rows * kBytes;
    first_row_ = thread_ < items_ ? row(thread_, start) : nullptr;
  }
  // For the tile with `keys` keys from `key` on.
  ROCFORGE_DEVICE void fetch(int64_t key, int keys) {
    if (thread_ < items_) first_ = eight_keys(first_row_, key, thread_ % kBytes * 8, keys);
  }
  template <class Start> ROCFORGE_DEVICE void pack(int buffer, int64_t key, int keys, Start start) {
    auto *const bytes = reinterpret_cast<uint8_t *>(bits_[buffer]);
    if (thread_ < items_) bytes[thread_] = squeeze(first_);
#pragma unroll 4
    for (int item = thread_ + kThreads; item < items_; item += kThreads) {
      bytes[item] = squeeze(eight_keys(row(item, start), key, item % kBytes * 8, keys));
    }
  }

  ROCFORGE_DEVICE Word word(int buffer, int row, int i) const { return bits_[buffer][row][i]; }

 private:
  template <class Start> ROCFORGE_DEVICE const uint8_t *row(int item, Start start) const {
    return static_cast<const uint8_t *>(mask_.data) + start(item / kBytes);
  }
  // Bytes of the mask for keys ahead .. ahead + 7 of a tile that begins at `key`, 0 past its end.
  ROCFORGE_DEVICE uint64_t eight_keys(const uint8_t *row, int64_t key, int ahead, int keys) const {
    const uint8_t *const from = row + (key + ahead) * mask_.key;
    if (mask_.key == 1 && ahead + 8 <= keys) return load_packed<uint64_t>(from);
    uint64_t eight = 0;
#pragma unroll 1
    for (int k = 0; k < 8 && ahead + k < keys; ++k) eight |= uint64_t{from[k * mask_.key]} << 8 * k;
    return eight;
  }
  // Bytes of 0 and 1 to bits: the products of the bytes with 2^24, 2^17, 2^10 and 2^3 meet in the upper byte.
  static ROCFORGE_DEVICE uint8_t squeeze(uint64_t eight) {
    const uint32_t low = static_cast<uint32_t>(eight) * 0x01020408 >> 24;
    const uint32_t high = static_cast<uint32_t>(eight >> 32) * 0x01020408 >> 24;
    return static_cast<uint8_t>(low | high << 4);
  }

  const Mask &mask_;
  Bits &bits_;
  const int thread_;
  int items_ = 0;
  const uint8_t *first_row_ = nullptr;  // of the thread's first eight keys
  uint64_t first_ = 0;
};

}  // namespace rocforge::gpu
