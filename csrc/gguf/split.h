// Models split over several files, <prefix>-00001-of-00003.gguf and so on, with keys that say which part each one is.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "gguf/error.h"
#include "gguf/shard.h"

namespace rocforge::gguf {

struct SplitPlace {
  uint64_t number;  // split.no: from 0, while file names count from 1
  uint64_t count;   // split.count
  bool operator==(const SplitPlace &) const = default;
};

// Where a shard stands in its model; nullopt when the file is a whole model. Error when its keys make no sense.
std::optional<SplitPlace> split_place(const Shard &shard);

// The file of the shard at `place` beside `path`, which is `shard`. Error when `path` is not named like a shard.
std::filesystem::path shard_path(const std::filesystem::path &path, const Shard &shard, const SplitPlace &place);

// Error unless the shard's own keys say that it stands at `place`.
void check_place(const Shard &shard, const SplitPlace &place);

// Error unless every split.tensors.count is the number of tensors of all shards.
void check_tensor_count(const std::vector<Shard> &shards);

Error missing_shard(const Shard &shard, const SplitPlace &place, const std::filesystem::path &path);

}  // namespace rocforge::gguf
