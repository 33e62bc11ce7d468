// The operators for LibTorch programs: link rocforge::ops (docs/cpp.md). Tensors on a GPU run its kernels where the
// library was built with them. Arguments that do not fit are c10::ValueError, c10::TypeError or another c10::Error.
// These are for inference: gradients are made by the Python package, and asking for one here is an error.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "rocforge/gguf.h"

#define ROCFORGE_API __attribute__((visibility("default")))

namespace rocforge {

using OptionalTensor = std::optional<at::Tensor>;

// The blocks of a tensor of a file, uint8 [..., row_bytes] in torch's order of dimensions: a view of the file's map,
// which lives as long as the result does.
ROCFORGE_API at::Tensor packed(const gguf::Tensor &tensor);

// packed: uint8 [..., row_bytes], any strides but a last one of 1. format: ggml's name, "Q4_K". dtype: float32, float16
// or bfloat16. Returns [..., weights of a row].
ROCFORGE_API at::Tensor dequantize(const at::Tensor &packed, std::string_view format,
                                   at::ScalarType dtype = at::kFloat);

// The rows of a packed table [rows, row_bytes] that indices (int32 or int64, any shape) name: [indices..., weights].
ROCFORGE_API at::Tensor embedding(const at::Tensor &packed, std::string_view format, const at::Tensor &indices,
                                  at::ScalarType dtype = at::kFloat);

// input [..., in] times the transpose of packed weights [out, row_bytes], plus bias [out]: [..., out] of input's dtype.
ROCFORGE_API at::Tensor linear(const at::Tensor &input, const at::Tensor &packed, std::string_view format,
                               const OptionalTensor &bias = std::nullopt);

// x [B, H, L, head_dim] rotated by the angles whose cos and sin are [L, width], [B, L, width] or [B, H, L, width].
ROCFORGE_API at::Tensor rotary_embedding(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin,
                                         bool interleaved = false);

// docs/pipeline.md
struct QkvRopeCacheOptions {
  OptionalTensor cos, sin, position_ids;
  bool interleaved = false;
  OptionalTensor bias, q_norm, k_norm;
  double eps = 1e-6;
  bool ring = false;
};

// qkv: [B, L, (Hq + 2 Hkv) D], or three tensors. The caches [B, Hkv, capacity, D] are written at cache_positions ([B,
// L], or [B] for the first token's). Returns the queries [B, Hq, L, D].
ROCFORGE_API at::Tensor qkv_rope_cache(const std::vector<at::Tensor> &qkv, at::Tensor &key_cache,
                                       at::Tensor &value_cache, const at::Tensor &cache_positions,
                                       const QkvRopeCacheOptions &options = {});

// docs/attention.md
struct AttentionOptions {
  OptionalTensor attn_mask;     // bool (true keeps) or float (added), broadcastable to [B, Hq, Lq, Lk]
  std::string causal = "none";  // "top_left", "bottom_right"
  std::optional<double> scale;  // 1 / sqrt(D)
  std::optional<int64_t> window;
  double softcap = 0;
  OptionalTensor sinks, alibi_slopes;         // [Hq]
  OptionalTensor kv_lengths;                  // int32 [B]
  OptionalTensor cu_seqlens_q, cu_seqlens_k;  // int32 [sequences + 1]
};

// query [B, Hq, Lq, D], key [B, Hkv, Lk, D], value [B, Hkv, Lk, Dv], Hq a multiple of Hkv. Returns out [B, Hq, Lq, Dv]
// and lse float32 [B, Hq, Lq].
ROCFORGE_API std::tuple<at::Tensor, at::Tensor> mqa_attention(const at::Tensor &query, const at::Tensor &key,
                                                              const at::Tensor &value,
                                                              const AttentionOptions &options = {});

}  // namespace rocforge
