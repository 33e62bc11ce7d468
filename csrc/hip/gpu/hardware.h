// What both vendors' compilers spell alike. Included by amd.h and nvidia.h, which supply the two streaming moves of a
// 16-byte word.
#pragma once

#define ROCFORGE_DEVICE __device__ __forceinline__
#define ROCFORGE_SITE  // see tests/emulation/device.h
#define ROCFORGE_PASS_SITE
#define SHARED(T, name, dims) __shared__ __align__(16) T name dims
#define ROCFORGE_TABLE [[maybe_unused]] static __device__ constexpr

#include "hip/gpu/types.h"

namespace rocforge::gpu {

// ---- Memory

template <int N, class T> ROCFORGE_DEVICE Vec<T, N> load(const T *p) { return *reinterpret_cast<const Vec<T, N> *>(p); }
template <class T, int N> ROCFORGE_DEVICE void store(T *p, const Vec<T, N> &vector) {
  *reinterpret_cast<Vec<T, N> *>(p) = vector;
}

using Word16 = Vec<uint32_t, 4>;
ROCFORGE_DEVICE Word16 load_word_streaming(const Word16 *p);
ROCFORGE_DEVICE void store_word_streaming(Word16 *p, const Word16 &word);

template <int N, class T> ROCFORGE_DEVICE Vec<T, N> load_streaming(const T *p) {
  static_assert(sizeof(Vec<T, N>) % sizeof(Word16) == 0, "whole 16-byte words");
  constexpr int kWords = sizeof(Vec<T, N>) / sizeof(Word16);
  Vec<Word16, kWords> words;
#pragma unroll
  for (int i = 0; i < kWords; ++i) words[i] = load_word_streaming(reinterpret_cast<const Word16 *>(p) + i);
  return bits_as<Vec<T, N>>(words);
}
template <class T, int N> ROCFORGE_DEVICE void store_streaming(T *p, const Vec<T, N> &vector) {
  static_assert(sizeof(vector) % sizeof(Word16) == 0, "whole 16-byte words");
  constexpr int kWords = sizeof(vector) / sizeof(Word16);
  const auto words = bits_as<Vec<Word16, kWords>>(vector);
#pragma unroll
  for (int i = 0; i < kWords; ++i) store_word_streaming(reinterpret_cast<Word16 *>(p) + i, words[i]);
}

template <class T, int kAlign = 16> ROCFORGE_DEVICE T *dynamic_lds() {
  extern __shared__ __align__(kAlign) unsigned char rocforge_dynamic_lds[];
  return reinterpret_cast<T *>(rocforge_dynamic_lds);
}

// ---- Waves and workgroups

ROCFORGE_DEVICE void syncthreads() { __syncthreads(); }

// Applies a move of 32-bit registers between lanes to a value of any size.
template <class T, class Move> ROCFORGE_DEVICE T move_words(const T &value, Move move) {
  uint32_t words[(sizeof(T) + 3) / 4] = {};
  __builtin_memcpy(words, &value, sizeof value);
#pragma unroll
  for (uint32_t &word : words) word = move(word);
  T moved;
  __builtin_memcpy(&moved, words, sizeof moved);
  return moved;
}

template <class T> ROCFORGE_DEVICE T atomic_add(T *address, T value) { return atomicAdd(address, value); }

}  // namespace rocforge::gpu
