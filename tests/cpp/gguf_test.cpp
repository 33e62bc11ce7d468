// The container reader on files made byte by byte. The table of malformed files is tests/test_gguf_malformed.py; here
// are the cases that the sanitizers should see, and the C++ interface.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "gguf/file.h"
#include "gguf/split.h"
#include "read_everything.h"

namespace rocforge::gguf {
namespace {

constexpr int32_t kTensorF32 = 0, kTensorQ4_0 = 2, kTensorQ4_K = 12, kTensorI8 = 24, kTensorI64 = 27;

class Bytes {
 public:
  template <class T> Bytes &put(T value) {
    bytes_.append(reinterpret_cast<const char *>(&value), sizeof value);
    return *this;
  }
  Bytes &put_string(std::string_view text) {
    put<uint64_t>(text.size());
    bytes_.append(text);
    return *this;
  }
  Bytes &put_zeros(size_t count) {
    bytes_.append(count, '\0');
    return *this;
  }
  Bytes &align() { return put_zeros((32 - bytes_.size() % 32) % 32); }

  Bytes &put_header(int64_t n_tensors, int64_t n_kv) {
    bytes_.append("GGUF");
    return put<uint32_t>(3).put(n_tensors).put(n_kv);
  }
  template <class T> Bytes &put_number(std::string_view key, Type type, T value) {
    return put_string(key).put(type).put(value);
  }
  Bytes &put_tensor(std::string_view name, const std::vector<int64_t> &ne, int32_t type, uint64_t offset) {
    put_string(name).put<uint32_t>(ne.size());
    for (const int64_t n : ne) put(n);
    return put(type).put(offset);
  }

  const std::string &str() const { return bytes_; }

 private:
  std::string bytes_;
};

// From an allocation of exactly this size: one byte too far is an error of AddressSanitizer.
Shard parse(std::string_view content) {
  const std::shared_ptr<uint8_t[]> bytes(new uint8_t[content.size()]);
  std::memcpy(bytes.get(), content.data(), content.size());
  return parse_shard({bytes, bytes.get()}, content.size(), "test.gguf");
}

File parse_file(std::string_view content) {
  std::vector<Shard> shards;
  shards.push_back(parse(content));
  return File(std::move(shards));
}

// The Error that parsing ends in.
Error::Details refusal(std::string_view content) {
  try {
    parse_file(content);
  } catch (const Error &error) {
    return error.details();
  }
  ADD_FAILURE() << "no error";
  return {};
}

std::string sample() {
  Bytes file;
  file.put_header(2, 5);
  file.put_string("general.architecture").put(Type::kString).put_string("llama");
  file.put_string("words").put(Type::kArray).put(Type::kString).put<uint64_t>(3);
  file.put_string("one").put_string("").put_string("three");
  file.put_string("numbers").put(Type::kArray).put(Type::kU16).put<uint64_t>(2).put<uint16_t>(7).put<uint16_t>(8);
  file.put_number<int64_t>("negative", Type::kI64, -1);
  file.put_number<uint8_t>("flag", Type::kBool, 1);
  file.put_tensor("a", {32, 2}, kTensorQ4_0, 0).put_tensor("b", {3}, kTensorF32, 64).align();
  return file.put_zeros(64).put(1.0f).put(2.0f).put(3.0f).str();
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = std::filesystem::temp_directory_path() / "gguf_test_XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }

  std::filesystem::path write(const std::string &name, std::string_view content) const {
    std::ofstream(path_ / name, std::ios::binary) << content;
    return path_ / name;
  }
  const std::filesystem::path &path() const { return path_; }

 private:
  std::filesystem::path path_;
};

TEST(Gguf, ReadsAFile) {
  const File file = parse_file(sample());
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.alignment(), 32u);
  EXPECT_EQ(file.find_value("general.architecture")->as_string(), "llama");
  EXPECT_EQ(file.find_value("words")->describe(), "array of 3 string");
  EXPECT_EQ(file.find_value("numbers")->describe(), "array of 2 u16");
  EXPECT_EQ(file.find_value("nothing"), nullptr);
  std::vector<std::string> words;
  file.find_value("words")->for_each_string([&](std::string_view word) { words.emplace_back(word); });
  EXPECT_EQ(words, (std::vector<std::string>{"one", "", "three"}));

  ASSERT_EQ(file.tensors().size(), 2u);
  const Tensor &a = file.tensors()[0], &b = *file.find_tensor("b");
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.format->name, "Q4_0");
  EXPECT_EQ(a.n_dims, 2);
  EXPECT_EQ(a.ne, (std::array<int64_t, 4>{32, 2, 1, 1}));
  EXPECT_EQ(a.row_bytes(), 18);
  EXPECT_EQ(a.nbytes, 36u);
  float values[3];
  std::memcpy(values, b.data.get(), b.nbytes);
  EXPECT_EQ(values[2], 3.0f);
  EXPECT_EQ(file.find_tensor("c"), nullptr);
  EXPECT_GT(read_everything(file), 0u);
}

TEST(Gguf, RefusesAFileCutAtAnyByte) {
  const std::string whole = sample();
  for (size_t size = 0; size < whole.size(); ++size) EXPECT_THROW(parse(whole.substr(0, size)), Error) << size;
}

TEST(Gguf, SurvivesAChangeOfAnyByte) {
  const std::string whole = sample();
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const int mask : {0x01, 0x02, 0x10, 0x20, 0x40, 0x80, 0xff}) {
      std::string changed = whole;
      changed[i] = static_cast<char>(changed[i] ^ mask);
      try {
        read_everything(parse_file(changed));
      } catch (const Error &error) {
        EXPECT_EQ(error.details().path, "test.gguf");
      }
    }
  }
}

TEST(Gguf, RefusesSizesThatWrap) {
  constexpr int64_t kHuge = 0x7fffffffffffffc0;
  constexpr int64_t k32 = int64_t{1} << 32, k40 = int64_t{1} << 40;
  const auto one = [](const std::vector<int64_t> &ne, int32_t type, uint64_t offset) {
    return Bytes().put_header(1, 0).put_tensor("t", ne, type, offset).align().put_zeros(64).str();
  };
  EXPECT_EQ(refusal(one({k32, k32}, kTensorI8, 0)).expected, "at most 2^63 - 1 weights");
  EXPECT_EQ(refusal(one({256, k40, k40}, kTensorQ4_K, 0)).expected, "at most 2^63 - 1 weights");
  EXPECT_EQ(refusal(one({k32 / 2 - 1, k32 / 2 - 1}, kTensorI64, 0)).expected, "a size below 2^64 bytes");
  EXPECT_EQ(refusal(one({k32, k32 / 8}, kTensorI64, 0)).expected, "a size below 2^64 bytes");
  EXPECT_EQ(refusal(one({kHuge}, kTensorI8, kHuge)).subject, "tensor \"t\"");
  EXPECT_EQ(refusal(one({kHuge}, kTensorI8, static_cast<uint64_t>(-64))).subject, "tensor \"t\"");
  EXPECT_EQ(refusal(one({1}, kTensorF32, static_cast<uint64_t>(-32))).subject, "tensor \"t\"");

  const auto array = [](Type type, uint64_t count) {
    return Bytes().put_header(0, 1).put_string("k").put(Type::kArray).put(type).put(count).put_zeros(16).str();
  };
  EXPECT_EQ(refusal(array(Type::kU64, uint64_t{1} << 61)).found, "2305843009213693952");
  EXPECT_EQ(refusal(array(Type::kString, ~uint64_t{0})).found, "18446744073709551615");
}

TEST(Gguf, MessagesHaveAllParts) {
  const std::string content = Bytes().put_header(0, 1).put_string("k\n").put<int32_t>(99).put_zeros(1).str();
  const Error::Details details = refusal(content);
  EXPECT_EQ(details.offset, 34u);
  EXPECT_EQ(details.subject, "key \"k\\x0a\"");
  EXPECT_STREQ(Error(details).what(),
               "test.gguf, byte 34, key \"k\\x0a\": expected a value type from 0 to 12, found 99");
}

TEST(Gguf, ShardsMustNotShareTensorNames) {
  std::vector<Shard> shards;
  shards.push_back(parse(sample()));
  shards.push_back(parse(sample()));
  EXPECT_THROW(File(std::move(shards)), Error);
}

TEST(GgufValue, UnsignedFromAnyIntegerType) {
  const auto value = [](Type type, auto number) {
    const std::string content = Bytes().put_header(0, 1).put_number("k", type, number).str();
    return parse_file(content).metadata()[0].value.as_unsigned();
  };
  EXPECT_EQ(value(Type::kU8, uint8_t{255}), 255u);
  EXPECT_EQ(value(Type::kI8, int8_t{127}), 127u);
  EXPECT_EQ(value(Type::kU16, uint16_t{65535}), 65535u);
  EXPECT_EQ(value(Type::kI16, int16_t{3}), 3u);
  EXPECT_EQ(value(Type::kU32, ~uint32_t{0}), 4294967295u);
  EXPECT_EQ(value(Type::kI32, int32_t{3}), 3u);
  EXPECT_EQ(value(Type::kU64, ~uint64_t{0}), ~uint64_t{0});
  EXPECT_EQ(value(Type::kI64, int64_t{3}), 3u);
  EXPECT_EQ(value(Type::kI8, int8_t{-1}), std::nullopt);
  EXPECT_EQ(value(Type::kI64, int64_t{-1}), std::nullopt);
  EXPECT_EQ(value(Type::kF32, 1.0f), std::nullopt);
  EXPECT_EQ(value(Type::kBool, uint8_t{1}), std::nullopt);
}

TEST(GgufUtf8, KnowsWellFormedText) {
  for (const char *text :
       {"", "plain", "\xc2\x80", "\xe2\x96\x81", "\xed\x9f\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(is_utf8(text)) << quoted(text);
  }
  for (const char *text : {"\x80", "\xc1\xbf", "\xc2", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xe2\x96", "\xe2\x96x",
                           "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "ok\xff"}) {
    EXPECT_FALSE(is_utf8(text)) << quoted(text);
  }
}

TEST(GgufFile, TensorsOutliveIt) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.write("model.gguf", sample());
  Tensor tensor;
  {
    const File file = File::open(path);
    read_everything(file);
    tensor = *file.find_tensor("b");
  }
  std::filesystem::remove(path);
  EXPECT_EQ(tensor.name, "b");
  float value;
  std::memcpy(&value, tensor.data.get() + 4, sizeof value);
  EXPECT_EQ(value, 2.0f);
}

TEST(GgufFile, SaysThatItChangedItsSize) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.write("model.gguf", sample());
  const File file = File::open(path);
  EXPECT_NO_THROW(file.check_sizes());
  std::filesystem::resize_file(path, 100);
  EXPECT_THROW(file.check_sizes(), Error);
}

TEST(GgufFile, PassesOnWhatTheSystemRefuses) {
  const TemporaryFolder folder;
  const auto code = [](const std::filesystem::path &path) {
    try {
      File::open(path);
    } catch (const std::filesystem::filesystem_error &error) {
      return error.code();
    }
    return std::error_code();
  };
  EXPECT_EQ(code(folder.path() / "none.gguf"), std::errc::no_such_file_or_directory);
  EXPECT_EQ(code(folder.path()), std::errc::is_a_directory);
  EXPECT_THROW(File::open(folder.write("empty.gguf", "")), Error);
  EXPECT_THROW(File::open("/dev/null"), Error);
}

TEST(GgufFile, OpensASplitModelFromAnyShard) {
  const TemporaryFolder folder;
  std::vector<std::filesystem::path> paths;
  for (const int number : {0, 1}) {
    Bytes file;
    file.put_header(1, 2);
    file.put_number<uint16_t>("split.no", Type::kU16, number).put_number<uint8_t>("split.count", Type::kU8, 2);
    file.put_tensor(number == 0 ? "a" : "b", {1}, kTensorF32, 0).align().put<float>(number);
    paths.push_back(folder.write("m-0000" + std::to_string(number + 1) + "-of-00002.gguf", file.str()));
  }
  for (const std::filesystem::path &path : paths) {
    const File file = File::open(path);
    ASSERT_EQ(file.tensors().size(), 2u);
    EXPECT_EQ(file.tensors()[0].name, "a");
    EXPECT_EQ(file.tensors()[1].name, "b");
    EXPECT_EQ(file.find_value("split.no")->as_unsigned(), 0u);
    read_everything(file);
  }
  std::filesystem::remove(paths[0]);
  EXPECT_THROW(File::open(paths[1]), Error);
}

}  // namespace
}  // namespace rocforge::gguf
