// The arguments of mqa_attention_q8_0, checked once for every device.
#pragma once

#include "formats/q8_0.h"
#include "ops/mqa_attention.h"

namespace rocforge {

// Elements of a row of Q8_0 blocks.
inline int64_t q8_0_elements(const at::Tensor &blocks) {
  using Q8_0 = formats::Q8_0;
  return blocks.size(3) / static_cast<int64_t>(sizeof(Q8_0::Block)) * Q8_0::block_size;
}

namespace mqa {

inline void check_blocks(const at::Tensor &query, const at::Tensor &blocks, const char *name) {
  check_device(query, blocks, name);
  TORCH_CHECK_TYPE(blocks.scalar_type() == at::kByte, name, " must be uint8, rows of Q8_0 blocks, got ",
                   blocks.scalar_type());
  constexpr int64_t kBytes = sizeof(formats::Q8_0::Block);
  TORCH_CHECK_VALUE(blocks.size(3) > 0 && blocks.size(3) % kBytes == 0, name, " must have rows of whole Q8_0 blocks, ",
                    kBytes, " bytes each, got ", blocks.size(3), " bytes");
  check_unit_stride(blocks, name);
}

}  // namespace mqa

// Everything but the values of kv_lengths.
inline MqaArgs check_mqa_attention_q8_0(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value,
                                        const MqaOptions &o) {
  mqa::check_shapes(query, key, value);
  TORCH_CHECK_TYPE(
      query.scalar_type() == at::kHalf || query.scalar_type() == at::kBFloat16 || query.scalar_type() == at::kFloat,
      "query must be float16, bfloat16 or float32, got ", query.scalar_type());
  mqa::check_blocks(query, key, "key");
  mqa::check_blocks(query, value, "value");
  TORCH_CHECK_VALUE(q8_0_elements(key) == query.size(3), "query has heads of ", query.size(3), ", key's blocks hold ",
                    q8_0_elements(key));
  mqa::check_unit_stride(query, "query");
  return check_mqa_options(query, key, o);
}

}  // namespace rocforge
