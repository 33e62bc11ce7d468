#include "gguf/split.h"

#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

namespace rocforge::gguf {
namespace {

constexpr std::string_view kNumberKey = "split.no", kCountKey = "split.count", kTensorsKey = "split.tensors.count";
constexpr uint64_t kMostShards = 65535;

Error key_error(const Shard &shard, std::string_view key, std::string expected, std::string found) {
  const Value *value = shard.find_value(key);
  const uint64_t offset = value == nullptr ? 0 : value->bytes.data() - shard.bytes.get();
  return Error({shard.path, offset, "key " + quoted(key), std::move(expected), std::move(found)});
}

// Writers use any integer type for these keys. nullopt: no such key.
std::optional<uint64_t> read_number(const Shard &shard, std::string_view key) {
  const Value *value = shard.find_value(key);
  if (value == nullptr) return std::nullopt;
  if (const auto number = value->as_unsigned()) return number;
  throw key_error(shard, key, "an integer of at least 0", value->describe());
}

std::string suffix(const SplitPlace &place) {
  char text[64];
  std::snprintf(text, sizeof text, "-%05llu-of-%05llu.gguf", static_cast<unsigned long long>(place.number + 1),
                static_cast<unsigned long long>(place.count));
  return text;
}

std::string describe(const SplitPlace &place) {
  return "shard " + std::to_string(place.number + 1) + " of " + std::to_string(place.count);
}

}  // namespace

std::optional<SplitPlace> split_place(const Shard &shard) {
  const std::optional<uint64_t> count = read_number(shard, kCountKey);
  if (count.value_or(0) <= 1) return std::nullopt;  // merged files keep the key, with 0
  if (*count > kMostShards) {
    throw key_error(shard, kCountKey, "at most " + std::to_string(kMostShards) + " shards", std::to_string(*count));
  }
  const std::optional<uint64_t> number = read_number(shard, kNumberKey);
  const std::string expected = "a shard number from 0 to " + std::to_string(*count - 1);
  if (!number) throw key_error(shard, kNumberKey, expected, "no such key");
  if (*number >= *count) throw key_error(shard, kNumberKey, expected, std::to_string(*number));
  return SplitPlace{*number, *count};
}

std::filesystem::path shard_path(const std::filesystem::path &path, const Shard &shard, const SplitPlace &place) {
  const SplitPlace own = *split_place(shard);
  const std::string name = path.filename(), ending = suffix(own);
  if (!name.ends_with(ending)) {
    throw key_error(shard, kNumberKey, "a file name that ends in " + ending + ", as it is " + describe(own), name);
  }
  std::filesystem::path result = path;
  return result.replace_filename(name.substr(0, name.size() - ending.size()) + suffix(place));
}

void check_place(const Shard &shard, const SplitPlace &place) {
  const std::optional<SplitPlace> own = split_place(shard);
  if (own == place) return;
  throw key_error(shard, kNumberKey, describe(place), own ? describe(*own) : "a file that is not split");
}

void check_tensor_count(const std::vector<Shard> &shards) {
  uint64_t count = 0;
  for (const Shard &shard : shards) count += shard.tensors.size();
  for (const Shard &shard : shards) {
    const uint64_t stated = read_number(shard, kTensorsKey).value_or(count);
    if (stated == count) continue;
    throw key_error(shard, kTensorsKey, std::to_string(stated) + " tensors in all shards", std::to_string(count));
  }
}

Error missing_shard(const Shard &shard, const SplitPlace &place, const std::filesystem::path &path) {
  return key_error(shard, kCountKey, describe(place) + " at " + path.string(), "no such file");
}

}  // namespace rocforge::gguf
