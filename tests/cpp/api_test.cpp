// The C++ API as a LibTorch program uses it, against plain ATen.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "rocforge/ops.h"

namespace rocforge {
namespace {

// A file with one key and one Q8_0 tensor "w" of 2 rows of 32 weights: row r is (r + 1) / 2 times -16 .. 15.
class Model {
 public:
  Model() : path_(std::filesystem::temp_directory_path() / ("rocforge_api_" + std::to_string(::getpid()) + ".gguf")) {
    bytes("GGUF", 4);
    number<uint32_t>(3);
    number<uint64_t>(1);
    number<uint64_t>(1);
    text("general.architecture");
    number<uint32_t>(8);
    text("test");
    text("w");
    number<uint32_t>(2);
    number<uint64_t>(32);
    number<uint64_t>(2);
    number<uint32_t>(8);  // Q8_0
    number<uint64_t>(0);
    data_.resize((data_.size() + 31) / 32 * 32);
    for (int row = 0; row < 2; ++row) {
      number<uint16_t>(row == 0 ? 0x3800 : 0x3c00);  // 0.5 and 1 as float16
      for (int i = 0; i < 32; ++i) number<int8_t>(static_cast<int8_t>(i - 16));
    }
    std::ofstream(path_, std::ios::binary).write(data_.data(), static_cast<std::streamsize>(data_.size()));
  }
  ~Model() { std::filesystem::remove(path_); }
  const std::filesystem::path &path() const { return path_; }

 private:
  void bytes(const void *first, size_t size) { data_.append(static_cast<const char *>(first), size); }
  template <class T> void number(T value) { bytes(&value, sizeof value); }
  void text(const std::string &string) {
    number<uint64_t>(string.size());
    bytes(string.data(), string.size());
  }

  std::filesystem::path path_;
  std::string data_;
};

at::Tensor levels() { return at::arange(-16, 16, at::kFloat); }
at::Tensor weights() { return at::stack({levels() / 2, levels()}); }
at::Tensor packed_weights() {
  const Model model;
  return packed(*gguf::File::open(model.path()).find_tensor("w"));  // the map outlives the file
}

template <class Error, class Function> std::string message_of(Function function) {
  try {
    function();
  } catch (const Error &error) {
    return error.what();
  }
  return "nothing was thrown";
}

#define EXPECT_MESSAGE(Error, call, part) \
  EXPECT_NE(message_of<Error>([&] { call; }).find(part), std::string::npos) << message_of<Error>([&] { call; })

at::Tensor attention(const at::Tensor &query, const at::Tensor &key, const at::Tensor &value, bool causal) {
  const int64_t groups = query.size(1) / key.size(1), rows = query.size(2), keys = key.size(2);
  const at::Tensor k = key.repeat_interleave(groups, 1), v = value.repeat_interleave(groups, 1);
  at::Tensor scores = at::matmul(query, k.transpose(2, 3)) / std::sqrt(static_cast<double>(query.size(3)));
  if (causal) {
    const at::Tensor hidden = at::ones({rows, keys}, at::kBool).triu(keys - rows + 1);
    scores = scores.masked_fill(hidden, -INFINITY);
  }
  return at::matmul(scores.softmax(-1), v);
}

TEST(Api, ReadsAFileAndDequantizesIt) {
  const Model model;
  const gguf::File file = gguf::File::open(model.path());
  EXPECT_EQ(file.find_value("general.architecture")->as_string(), "test");
  EXPECT_EQ(file.find_tensor("nothing"), nullptr);
  const at::Tensor w = packed(*file.find_tensor("w"));
  EXPECT_EQ(w.sizes(), (std::vector<int64_t>{2, 34}));
  EXPECT_TRUE(dequantize(w, "Q8_0").equal(weights()));
  EXPECT_TRUE(dequantize(w, "Q8_0", at::kHalf).equal(weights().to(at::kHalf)));
  EXPECT_TRUE(embedding(w, "Q8_0", at::tensor({1, 1, 0}, at::kLong)).equal(weights().index({at::tensor({1, 1, 0})})));
}

TEST(Api, MultipliesPackedWeights) {
  const at::Tensor x = at::randn({3, 5, 32}), bias = at::randn({2});
  const at::Tensor expected = at::matmul(x, weights().t()) + bias;
  EXPECT_TRUE(linear(x, packed_weights(), "Q8_0", bias).allclose(expected, 1e-4, 1e-4));
}

TEST(Api, Attends) {
  const at::Tensor query = at::randn({2, 6, 5, 16}), key = at::randn({2, 2, 9, 16}), value = at::randn({2, 2, 9, 24});
  const auto [out, lse] = mqa_attention(query, key, value);
  EXPECT_TRUE(out.allclose(attention(query, key, value, false), 1e-4, 1e-5));
  EXPECT_EQ(lse.sizes(), (std::vector<int64_t>{2, 6, 5}));
  AttentionOptions options;
  options.causal = "bottom_right";
  EXPECT_TRUE(
      std::get<0>(mqa_attention(query, key, value, options)).allclose(attention(query, key, value, true), 1e-4, 1e-5));
  options.kv_lengths = at::full({2}, 7, at::kInt);
  EXPECT_TRUE(std::get<0>(mqa_attention(query, key, value, options))
                  .allclose(attention(query, key.narrow(2, 0, 7), value.narrow(2, 0, 7), true), 1e-4, 1e-5));
}

TEST(Api, WritesTheCache) {
  const int64_t heads = 4, kv_heads = 2, dim = 8, length = 3;
  const at::Tensor qkv = at::randn({2, length, (heads + 2 * kv_heads) * dim}), angle = at::randn({length, dim / 2});
  at::Tensor key_cache = at::zeros({2, kv_heads, 6, dim}), value_cache = at::zeros_like(key_cache);
  QkvRopeCacheOptions options;
  options.cos = angle.cos();
  options.sin = angle.sin();
  const at::Tensor query = qkv_rope_cache({qkv}, key_cache, value_cache, at::tensor({0, 2}, at::kInt), options);
  const auto heads_of = [&](int64_t first, int64_t count) {
    return qkv.narrow(2, first * dim, count * dim).unflatten(2, {count, dim}).transpose(1, 2);
  };
  const at::Tensor key = rotary_embedding(heads_of(heads, kv_heads), *options.cos, *options.sin);
  EXPECT_TRUE(query.equal(rotary_embedding(heads_of(0, heads), *options.cos, *options.sin)));
  EXPECT_TRUE(key_cache[1].narrow(1, 2, length).equal(key[1]));
  EXPECT_TRUE(value_cache[0].narrow(1, 0, length).equal(heads_of(heads + kv_heads, kv_heads)[0]));
  EXPECT_EQ(key_cache[0].narrow(1, length, 3).abs().sum().item<float>(), 0);
}

TEST(ApiErrors, SayWhatWasExpected) {
  const at::Tensor w = packed_weights(), x = at::randn({1, 3, 4, 8});
  EXPECT_MESSAGE(c10::ValueError, dequantize(w, "Q8_9"), "Q8_0");
  EXPECT_MESSAGE(c10::ValueError, dequantize(w.narrow(1, 0, 33), "Q8_0"), "34");
  EXPECT_MESSAGE(c10::TypeError, dequantize(w.to(at::kInt), "Q8_0"), "uint8");
  EXPECT_MESSAGE(c10::ValueError, linear(at::randn({2, 31}), w, "Q8_0"), "with 32 in");
  EXPECT_MESSAGE(c10::ValueError, mqa_attention(x, x.narrow(1, 0, 2), x.narrow(1, 0, 2)), "multiple of the key/value");
  AttentionOptions options;
  options.causal = "left";
  EXPECT_MESSAGE(c10::ValueError, mqa_attention(x, x, x, options), "got 'left'");
  options = {};
  options.window = 0;
  EXPECT_MESSAGE(c10::ValueError, mqa_attention(x, x, x, options), "window must be at least 1");
  EXPECT_MESSAGE(c10::ValueError, rotary_embedding(x, at::zeros({4, 5}), at::zeros({4, 5})), "one angle per pair");
}

TEST(ApiErrors, FilesThatAreNone) {
  EXPECT_THROW(gguf::File::open("/nowhere/model.gguf"), std::filesystem::filesystem_error);
  const Model model;
  std::filesystem::resize_file(model.path(), 100);
  EXPECT_THROW(gguf::File::open(model.path()), gguf::Error);
}

TEST(ApiErrors, GradientsAreRefused) {
  const at::Tensor x = at::randn({1, 2, 4, 8}).requires_grad_();
  EXPECT_MESSAGE(c10::NotImplementedError, mqa_attention(x, x, x), "has no gradients in C++");
  const at::NoGradGuard inference;
  EXPECT_FALSE(std::get<0>(mqa_attention(x, x, x)).requires_grad());
}

}  // namespace
}  // namespace rocforge
