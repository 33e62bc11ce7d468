// A GGUF model: one file, or all the shards of a split one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "gguf/error.h"
#include "gguf/mapped_file.h"
#include "gguf/shard.h"
#include "gguf/value.h"

namespace rocforge::gguf {

class File {
 public:
  // Maps and checks the file, and every other shard when it is one of several. Error: malformed.
  // std::filesystem::filesystem_error: the system refuses (no such file, a directory, no permission).
  static File open(const std::filesystem::path &path);

  // The shards of one model, in order. Error when two tensors share a name.
  explicit File(std::vector<Shard> shards);

  // Version, alignment and metadata are those of the first shard.
  uint32_t version() const { return shards_.front().version; }
  uint32_t alignment() const { return shards_.front().alignment; }
  const std::vector<KeyValue> &metadata() const { return shards_.front().metadata; }
  const Value *find_value(std::string_view key) const { return shards_.front().find_value(key); }

  // In the order of the shards, and in each of them in the order of its tensor infos.
  const std::vector<Tensor> &tensors() const { return tensors_; }
  const Tensor *find_tensor(std::string_view name) const;  // nullptr: no such tensor

  // Error when a file has changed its size since it was opened: its tensors must not be touched then.
  void check_sizes() const;

 private:
  std::vector<Shard> shards_;  // their tensors are moved into tensors_
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string_view, size_t> by_name_;  // position in tensors_
  std::vector<std::shared_ptr<const MappedFile>> maps_;
};

}  // namespace rocforge::gguf
