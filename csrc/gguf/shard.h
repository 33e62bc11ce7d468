// One GGUF file in memory, checked as a whole.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/registry.h"
#include "gguf/value.h"

namespace rocforge::gguf {

struct Tensor {
  std::string_view name;  // UTF-8, in the map
  const formats::FormatInfo *format;
  int n_dims;
  std::array<int64_t, 4> ne;  // ggml's order: ne[0] runs fastest; 1 from n_dims on
  uint64_t nbytes;
  std::shared_ptr<const uint8_t> data;  // nbytes in the map, which lives at least as long as this pointer

  int64_t row_bytes() const { return ne[0] / format->block_size * format->block_bytes; }
};

struct Shard {
  std::string path;
  std::shared_ptr<const uint8_t> bytes;  // the file
  uint32_t version;
  uint32_t alignment;
  std::vector<KeyValue> metadata;
  std::vector<Tensor> tensors;  // in the file's order

  const Value *find_value(std::string_view key) const;  // nullptr: no such key
};

// Reads and checks everything but the uniqueness of tensor names, which File checks over all shards.
// Throws Error. `path` is for messages.
Shard parse_shard(std::shared_ptr<const uint8_t> bytes, uint64_t size, std::string path);

}  // namespace rocforge::gguf
