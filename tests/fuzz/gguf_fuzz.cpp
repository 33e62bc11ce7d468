// libFuzzer target: any bytes are either refused with gguf::Error or give a file that can be read everywhere.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "gguf/file.h"
#include "gguf/split.h"
#include "read_everything.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace rocforge::gguf;
  try {
    const std::shared_ptr<const uint8_t> bytes(data, [](const uint8_t *) {});
    std::vector<Shard> shards;
    shards.push_back(parse_shard(bytes, size, "model-00001-of-00002.gguf"));
    if (const auto place = split_place(shards.front())) {
      shard_path(shards.front().path, shards.front(), {place->count - 1, place->count});
      check_place(shards.front(), *place);
      check_tensor_count(shards);
    }
    read_everything(File(std::move(shards)));
  } catch (const Error &error) {
    require(!error.details().subject.empty() && !error.details().expected.empty() && !error.details().found.empty());
  }
  return 0;
}
