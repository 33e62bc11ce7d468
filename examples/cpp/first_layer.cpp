// Runs the first attention layer of a Llama-like GGUF model on a few tokens, its projections packed as in the file:
// first_layer model.gguf
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <rocforge/ops.h>

#include <cstdio>
#include <exception>
#include <stdexcept>

namespace gguf = rocforge::gguf;

struct Weight {
  at::Tensor packed;
  std::string format;

  at::Tensor operator()(const at::Tensor &x) const { return rocforge::linear(x, packed, format); }
};

Weight weight(const gguf::File &file, const std::string &name) {
  const gguf::Tensor *tensor = file.find_tensor(name);
  if (!tensor) throw std::runtime_error("the file has no " + name);
  return {rocforge::packed(*tensor), std::string(tensor->format->name)};
}

int64_t count(const gguf::File &file, const std::string &key) {
  const gguf::Value *value = file.find_value(key);
  const auto number = value ? value->as_unsigned() : std::nullopt;
  if (!number) throw std::runtime_error("the file has no number " + key);
  return static_cast<int64_t>(*number);
}

int main(int argc, char **argv) try {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s model.gguf\n", argv[0]);
    return 2;
  }
  const at::NoGradGuard inference;
  const auto file = gguf::File::open(argv[1]);
  const auto *architecture = file.find_value("general.architecture");
  const std::string prefix(architecture ? architecture->as_string().value_or("") : "");
  const int64_t heads = count(file, prefix + ".attention.head_count");
  const int64_t kv_heads = count(file, prefix + ".attention.head_count_kv");

  const Weight table = weight(file, "token_embd.weight"), output = weight(file, "blk.0.attn_output.weight");
  const Weight q = weight(file, "blk.0.attn_q.weight"), k = weight(file, "blk.0.attn_k.weight"),
               v = weight(file, "blk.0.attn_v.weight");
  const at::Tensor scale = rocforge::dequantize(weight(file, "blk.0.attn_norm.weight").packed, "F32");

  const at::Tensor tokens = at::arange(1, 9, at::kLong).unsqueeze(0);  // [1, 8]
  const at::Tensor x = rocforge::embedding(table.packed, table.format, tokens);
  const at::Tensor hidden = x * at::rsqrt(x.square().mean(-1, true) + 1e-5) * scale;

  const at::Tensor query = q(hidden), key = k(hidden), value = v(hidden);
  const int64_t length = tokens.size(1), head_dim = query.size(-1) / heads;
  const at::Tensor pairs = at::arange(0, head_dim, 2, at::kFloat) / static_cast<double>(head_dim);
  const at::Tensor angles = at::outer(at::arange(length, at::kFloat), at::pow(10000.0, -pairs));

  at::Tensor key_cache = at::zeros({1, kv_heads, 64, head_dim}), value_cache = at::zeros_like(key_cache);
  rocforge::QkvRopeCacheOptions rotation;
  rotation.cos = angles.cos();
  rotation.sin = angles.sin();
  rotation.interleaved = true;  // the order in which GGUF files keep Llama's heads
  const at::Tensor queries =
      rocforge::qkv_rope_cache({query, key, value}, key_cache, value_cache, at::zeros({1}, at::kInt), rotation);
  rocforge::AttentionOptions options;
  options.causal = "bottom_right";
  options.kv_lengths = at::full({1}, length, at::kInt);
  const auto [out, lse] = rocforge::mqa_attention(queries, key_cache, value_cache, options);
  const at::Tensor layer = x + output(out.transpose(1, 2).flatten(2));
  std::printf(
      "%s: %lld query heads on %lld key/value heads of size %lld, after one layer the last token is %.4f long\n",
      prefix.c_str(), static_cast<long long>(heads), static_cast<long long>(kv_heads), static_cast<long long>(head_dim),
      layer.select(1, -1).norm().item<double>());
  return 0;
} catch (const std::exception &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
