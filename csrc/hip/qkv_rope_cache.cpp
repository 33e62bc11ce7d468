#include "hip/qkv_rope_cache.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "hip/head_tensors.h"
#include "hip/stream.h"
#include "ops/qkv_rope_cache.h"

namespace rocforge::gpu {
namespace {

QkvPart part(const at::Tensor &x, const at::Tensor &out, const at::Tensor &bias, const at::Tensor &norm) {
  QkvPart part{};
  part.x = x.const_data_ptr();
  part.out = out.mutable_data_ptr();
  for (int dim = 0; dim < 3; ++dim) {
    part.x_strides[dim] = x.stride(dim);
    part.out_strides[dim] = out.stride(dim);
  }
  part.heads = static_cast<int>(x.size(2));
  part.head_dim = static_cast<int>(x.size(3));
  part.bias = numbers(bias);
  part.norm = numbers(norm);
  return part;
}

PositionTable position_table(const Positions &positions) {
  if (!positions.values.defined()) return {};
  return {positions.values.const_data_ptr(),
          {positions.values.stride(0), positions.values.stride(1)},
          positions.step,
          positions.values.scalar_type() == at::kLong};
}

void set_rotation(const QkvArgs &args, bool interleaved, QkvRopeCache &work) {
  work.interleaved = interleaved;
  if (!args.cos.defined()) return;
  work.parts[0].pairs = work.parts[1].pairs = static_cast<int>(args.pairs);
  work.angles = {angle_table(args.cos, args.angle_step), angle_table(args.sin, args.angle_step)};
  work.rows = position_table(args.angle);
  work.table_rows = args.cos.size(0);
  const auto set_strides = [](const at::Tensor &t, int64_t (&strides)[2]) {
    strides[0] = t.dim() == 3 ? t.stride(0) : 0;
    strides[1] = t.stride(-2);
  };
  set_strides(args.cos, work.cos_strides);
  set_strides(args.sin, work.sin_strides);
}

at::Tensor qkv_rope_cache(at::TensorList qkv, const at::Tensor &key_cache, const at::Tensor &value_cache,
                          const at::Tensor &cache_positions, const std::optional<at::Tensor> &cos,
                          const std::optional<at::Tensor> &sin, const std::optional<at::Tensor> &position_ids,
                          bool interleaved, const std::optional<at::Tensor> &bias,
                          const std::optional<at::Tensor> &q_norm, const std::optional<at::Tensor> &k_norm, double eps,
                          bool ring) {
  const QkvOptions options{cos, sin, position_ids, bias, q_norm, k_norm, interleaved, ring, eps};
  const QkvArgs args = check_qkv_rope_cache(qkv, key_cache, value_cache, cache_positions, options);
  const at::Tensor &x = args.query;
  at::Tensor query = at::empty({x.size(0), x.size(2), x.size(1), x.size(3)}, x.options());
  if (query.numel() == 0) return query;

  QkvRopeCache work{};
  work.parts[0] = part(args.query, query, args.query_bias, args.q_norm);
  work.parts[1] = part(args.key, key_cache, args.key_bias, args.k_norm);
  work.parts[2] = part(args.value, value_cache, args.value_bias, {});
  work.parts[1].cached = work.parts[2].cached = true;
  work.batch = x.size(0);
  work.length = x.size(1);
  work.slots = position_table(args.cache);
  work.capacity = key_cache.size(2);
  work.ring = ring;
  work.eps = eps;
  work.type = row_type(x.scalar_type());
  const int64_t width = 16 / x.element_size();
  set_rotation(args, interleaved, work);
  work.vector = whole_vectors(x.size(3), args.pairs, width) && whole_vectors(args.value.size(3), 0, width) &&
                args.angle_step == 1;
  for (const at::Tensor &t : {args.query, args.key, args.value, key_cache, value_cache, args.query_bias, args.key_bias,
                              args.value_bias, args.q_norm, args.k_norm, args.cos, args.sin}) {
    work.vector = work.vector && (!t.defined() || rows_are_aligned(t, width));
  }
  const DeviceStream stream(x.device());
  place_heads(work, stream.get());
  return query;
}

}  // namespace
}  // namespace rocforge::gpu

TORCH_LIBRARY_IMPL(rocforge, ROCFORGE_GPU_KEY, m) { m.impl("qkv_rope_cache", rocforge::gpu::qkv_rope_cache); }
