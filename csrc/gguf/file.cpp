#include "gguf/file.h"

#include <optional>
#include <system_error>
#include <utility>

#include "gguf/split.h"

namespace rocforge::gguf {
namespace {

struct OpenedShard {
  std::shared_ptr<const MappedFile> map;
  Shard shard;
};

OpenedShard open_shard(const std::filesystem::path &path) {
  const auto map = std::make_shared<const MappedFile>(path);
  const std::shared_ptr<const uint8_t> bytes(map, map->bytes().data());
  return {map, parse_shard(bytes, map->bytes().size(), path)};
}

// The shard at `place` of the model that `given` (found at `path`) is a part of.
OpenedShard open_sibling(const std::filesystem::path &path, const Shard &given, const SplitPlace &place) {
  const std::filesystem::path sibling = shard_path(path, given, place);
  try {
    OpenedShard opened = open_shard(sibling);
    check_place(opened.shard, place);
    return opened;
  } catch (const std::filesystem::filesystem_error &error) {
    if (error.code() != std::errc::no_such_file_or_directory) throw;
    throw missing_shard(given, place, sibling);
  }
}

}  // namespace

File File::open(const std::filesystem::path &path) {
  std::vector<OpenedShard> opened;
  opened.push_back(open_shard(path));
  if (const std::optional<SplitPlace> place = split_place(opened.front().shard)) {
    OpenedShard given = std::move(opened.front());
    opened.clear();
    for (uint64_t number = 0; number < place->count; ++number) {
      if (number != place->number) opened.push_back(open_sibling(path, given.shard, {number, place->count}));
    }
    opened.insert(opened.begin() + static_cast<ptrdiff_t>(place->number), std::move(given));
  }

  std::vector<Shard> shards;
  std::vector<std::shared_ptr<const MappedFile>> maps;
  for (OpenedShard &one : opened) {
    shards.push_back(std::move(one.shard));
    maps.push_back(std::move(one.map));
  }
  if (shards.size() > 1) check_tensor_count(shards);
  File file(std::move(shards));
  file.maps_ = std::move(maps);
  file.check_sizes();
  return file;
}

File::File(std::vector<Shard> shards) : shards_(std::move(shards)) {
  size_t count = 0;
  for (const Shard &shard : shards_) count += shard.tensors.size();
  tensors_.reserve(count);
  by_name_.reserve(count);
  for (Shard &shard : shards_) {
    for (Tensor &tensor : shard.tensors) {
      if (!by_name_.emplace(tensor.name, tensors_.size()).second) {
        const uint64_t offset = reinterpret_cast<const uint8_t *>(tensor.name.data()) - shard.bytes.get();
        throw Error({shard.path, offset, "tensor " + quoted(tensor.name), "every tensor name once", "the name again"});
      }
      tensors_.push_back(std::move(tensor));
    }
    shard.tensors.clear();
  }
}

const Tensor *File::find_tensor(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

void File::check_sizes() const {
  for (const auto &map : maps_) map->check_size();
}

}  // namespace rocforge::gguf
