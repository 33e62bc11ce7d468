// Runs a row decoder over many rows on all threads.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include "formats/registry.h"
#include "ops/cpu/huge_pages.h"
#include "ops/cpu/isa.h"

namespace rocforge::cpu {

inline OutType out_type(at::ScalarType dtype) {
  return dtype == at::kFloat ? OutType::kFloat : dtype == at::kHalf ? OutType::kHalf : OutType::kBFloat16;
}

// Decodes `rows` rows of `weights` weights into contiguous `out`; row_start(i) is where row i's packed bytes begin.
// Rows are cut into pieces, so that one long row uses all threads too.
template <class RowStart>
void decode_rows(const formats::FormatInfo &format, DecodeRow decode, at::Tensor &out, int64_t rows, int64_t weights,
                 RowStart row_start) {
  constexpr int64_t kPiece = 1 << 14;  // weights: 64 KiB of float32, well above the cost of a call
  static_assert(kPiece % 256 == 0, "a piece is whole blocks of every format");
  const int64_t pieces = (weights + kPiece - 1) / kPiece;
  auto *const first = static_cast<char *>(out.mutable_data_ptr());
  const int64_t out_bytes = out.element_size();
  prefer_huge_pages(first, static_cast<int64_t>(out.nbytes()));
  const int64_t grain = std::max<int64_t>(1, kPiece / std::max<int64_t>(1, weights));
  at::parallel_for(0, rows * pieces, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / pieces, at = i % pieces * kPiece;
      decode(row_start(row) + at / format.block_size * format.block_bytes, first + (row * weights + at) * out_bytes,
             std::min(kPiece, weights - at));
    }
  });
}

}  // namespace rocforge::cpu
