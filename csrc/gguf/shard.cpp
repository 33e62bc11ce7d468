#include "gguf/shard.h"

#include <algorithm>
#include <numeric>
#include <unordered_set>
#include <utility>

#include "gguf/cursor.h"
#include "gguf/utf8.h"

namespace rocforge::gguf {
namespace {

constexpr uint64_t kLongestKey = 65535;
constexpr uint64_t kLongestTensorName = 64;
constexpr uint32_t kDefaultAlignment = 32;
constexpr uint32_t kLargestAlignment = 1 << 24;  // far above any page; a padding of gigabytes is no file's intent

// The fewest bytes an entry can have: (length, 1-byte key, type, 1-byte value) and
// (length, 1-byte name, n_dims, one dimension, type, offset).
constexpr uint64_t kLeastKeyValueBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kLeastTensorInfoBytes = 8 + 1 + 4 + 8 + 4 + 8;

bool multiply(uint64_t a, uint64_t b, uint64_t *product) { return !__builtin_mul_overflow(a, b, product); }

class Parser {
 public:
  Parser(std::shared_ptr<const uint8_t> bytes, uint64_t size, std::string path)
      : size_(size),
        shard_{std::move(path), std::move(bytes), 0, kDefaultAlignment, {}, {}},
        cursor_({shard_.bytes.get(), size}, shard_.path) {}

  Shard parse() {
    read_header();
    read_metadata();
    read_known_keys();
    read_tensor_infos();
    place_data();
    check_overlaps();
    return std::move(shard_);
  }

 private:
  void read_header();
  void read_metadata();
  Type read_type(const char *what);
  Value read_value();
  void read_known_keys();
  void read_tensor_infos();
  void read_shape(Tensor &tensor);
  const formats::FormatInfo *read_format();
  void set_nbytes(Tensor &tensor);
  void place_data();
  void check_overlaps();
  std::string_view read_name(const char *kind, const char *what, uint64_t longest);
  [[noreturn]] void fail_at(uint64_t offset, std::string_view kind, std::string_view name, std::string expected,
                            std::string found) const;

  const uint64_t size_;
  Shard shard_;
  Cursor cursor_;
  uint64_t n_tensors_ = 0;
  uint64_t n_kv_ = 0;
  std::vector<uint64_t> offsets_;  // of the tensors in the data section
};

void Parser::read_header() {
  const std::span<const uint8_t> magic = cursor_.read_bytes(4, "magic");
  const std::string_view found(reinterpret_cast<const char *>(magic.data()), magic.size());
  if (found != "GGUF") cursor_.fail("the magic \"GGUF\"", quoted(found));

  shard_.version = cursor_.read<uint32_t>("version");
  const std::string number = std::to_string(shard_.version);
  if (shard_.version == 0) cursor_.fail("version 2 or 3", "version 0, which never existed");
  if (shard_.version == 1) cursor_.fail("version 2 or 3", "version 1, whose lengths have 32 bits (convert it again)");
  if ((shard_.version & 0xffff) == 0) {
    cursor_.fail("a little-endian file", "version " + number + ": a big-endian file (convert it for little-endian)");
  }
  if (shard_.version > 3) cursor_.fail("version 2 or 3", "version " + number + ", newer than this reader");

  n_tensors_ = cursor_.read_count(kLeastTensorInfoBytes, "number of tensors");
  n_kv_ = cursor_.read_count(kLeastKeyValueBytes, "number of keys");
}

std::string_view Parser::read_name(const char *kind, const char *what, uint64_t longest) {
  cursor_.set_subject(kind);
  const std::string_view name = cursor_.read_string(what);
  if (name.empty() || name.size() > longest) {
    cursor_.fail(std::string("a ") + what + " of 1 to " + std::to_string(longest) + " bytes",
                 std::to_string(name.size()) + " bytes");
  }
  cursor_.set_subject(kind, name);
  if (!is_utf8(name)) cursor_.fail(std::string("a ") + what + " in UTF-8", "other bytes");
  return name;
}

void Parser::read_metadata() {
  std::unordered_set<std::string_view> keys;
  for (uint64_t i = 0; i < n_kv_; ++i) {
    const std::string_view key = read_name("key", "key", kLongestKey);
    if (!keys.insert(key).second) cursor_.fail("every key once", "the key again");
    shard_.metadata.push_back({key, read_value()});
  }
}

Type Parser::read_type(const char *what) {
  const auto number = cursor_.read<int32_t>(what);
  if (number < 0 || number > static_cast<int32_t>(Type::kF64)) {
    cursor_.fail(std::string("a ") + what + " from 0 to 12", std::to_string(number));
  }
  return static_cast<Type>(number);
}

Value Parser::read_value() {
  Value value{read_type("value type"), false, 1, {}};
  if (value.type == Type::kArray) {
    value.is_array = true;
    value.type = read_type("array element type");
    if (value.type == Type::kArray) cursor_.fail("an array of numbers, bools or strings", "an array of arrays");
    const uint64_t element_bytes = value.type == Type::kString ? sizeof(uint64_t) : type_bytes(value.type);
    value.count = cursor_.read_count(element_bytes, "number of elements");
  }
  if (value.type != Type::kString) {
    value.bytes = cursor_.read_bytes(value.count * type_bytes(value.type), "value");
    return value;
  }
  const uint64_t start = cursor_.offset();
  for (uint64_t i = 0; i < value.count; ++i) cursor_.read_string("string");
  value.bytes = {shard_.bytes.get() + start, cursor_.offset() - start};
  return value;
}

// The keys that decide how a file is read must have the type that the format gives them.
void Parser::read_known_keys() {
  for (const auto &[key, value] : shard_.metadata) {
    const uint64_t offset = value.bytes.data() - shard_.bytes.get();
    if (key == "general.architecture" && !value.as_string()) {
      fail_at(offset, "key", key, "a string", value.describe());
    }
    if (key != "general.alignment") continue;
    if (value.is_array || value.type != Type::kU32) fail_at(offset, "key", key, "a u32", value.describe());
    const auto alignment = static_cast<uint32_t>(*value.as_unsigned());
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > kLargestAlignment) {
      fail_at(offset, "key", key, "a power of two up to " + std::to_string(kLargestAlignment),
              std::to_string(alignment));
    }
    shard_.alignment = alignment;
  }
}

void Parser::read_tensor_infos() {
  for (uint64_t i = 0; i < n_tensors_; ++i) {
    Tensor tensor{};
    tensor.name = read_name("tensor", "tensor name", kLongestTensorName);
    read_shape(tensor);
    tensor.format = read_format();
    set_nbytes(tensor);
    const auto offset = cursor_.read<uint64_t>("data offset");
    if (offset % shard_.alignment != 0) {
      cursor_.fail("a data offset that is a multiple of the alignment " + std::to_string(shard_.alignment),
                   std::to_string(offset));
    }
    shard_.tensors.push_back(tensor);
    offsets_.push_back(offset);
  }
}

void Parser::read_shape(Tensor &tensor) {
  const auto n_dims = cursor_.read<uint32_t>("number of dimensions");
  if (n_dims < 1 || n_dims > tensor.ne.size()) cursor_.fail("1 to 4 dimensions", std::to_string(n_dims));
  tensor.n_dims = static_cast<int>(n_dims);
  tensor.ne.fill(1);
  int64_t weights = 1;
  for (uint32_t i = 0; i < n_dims; ++i) {
    tensor.ne[i] = cursor_.read<int64_t>("dimension");
    if (tensor.ne[i] < 1) cursor_.fail("dimensions of at least 1", std::to_string(tensor.ne[i]));
    if (__builtin_mul_overflow(weights, tensor.ne[i], &weights)) {
      cursor_.fail("at most 2^63 - 1 weights", "a dimension of " + std::to_string(tensor.ne[i]) + " that exceeds them");
    }
  }
}

const formats::FormatInfo *Parser::read_format() {
  const auto id = cursor_.read<int32_t>("type");
  const std::string number = std::to_string(id);
  if (id < 0) cursor_.fail("a type of at least 0", number + ", a negative type");
  const std::string_view removed = formats::removed_type(static_cast<uint32_t>(id));
  if (!removed.empty()) {
    cursor_.fail("a type that GGUF still has", number + ": " + std::string(removed) + ", removed from GGUF");
  }
  const int index = formats::find(static_cast<uint32_t>(id));
  if (index < 0) cursor_.fail("a type that ggml defines", number + ", a private type or one newer than this reader");
  return &formats::kFormats[index];
}

void Parser::set_nbytes(Tensor &tensor) {
  const formats::FormatInfo &format = *tensor.format;
  if (tensor.ne[0] % format.block_size != 0) {
    cursor_.fail(
        "rows of whole " + std::string(format.name) + " blocks, " + std::to_string(format.block_size) + " weights each",
        "rows of " + std::to_string(tensor.ne[0]));
  }
  tensor.nbytes = tensor.ne[0] / format.block_size;
  bool fits = multiply(tensor.nbytes, format.block_bytes, &tensor.nbytes);
  for (int i = 1; i < tensor.n_dims; ++i) fits = fits && multiply(tensor.nbytes, tensor.ne[i], &tensor.nbytes);
  if (!fits) cursor_.fail("a size below 2^64 bytes", "a shape whose size exceeds it");
}

// Needs the end of the infos: the data section starts at the next multiple of the alignment.
void Parser::place_data() {
  const uint64_t alignment = shard_.alignment;
  const uint64_t start = (cursor_.offset() + alignment - 1) / alignment * alignment;
  const uint64_t section = size_ > start ? size_ - start : 0;
  for (size_t i = 0; i < offsets_.size(); ++i) {
    Tensor &tensor = shard_.tensors[i];
    if (offsets_[i] > section || tensor.nbytes > section - offsets_[i]) {
      fail_at(start, "tensor", tensor.name,
              std::to_string(tensor.nbytes) + " bytes at " + std::to_string(offsets_[i]) + " of the data section",
              "a section of " + std::to_string(section) + " bytes (truncated file or unfinished download?)");
    }
    tensor.data = {shard_.bytes, shard_.bytes.get() + start + offsets_[i]};
  }
}

void Parser::check_overlaps() {
  const std::vector<Tensor> &tensors = shard_.tensors;
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return offsets_[a] < offsets_[b]; });
  for (size_t i = 1; i < order.size(); ++i) {
    const Tensor &before = tensors[order[i - 1]], &tensor = tensors[order[i]];
    if (before.data.get() + before.nbytes <= tensor.data.get()) continue;
    fail_at(tensor.data.get() - shard_.bytes.get(), "tensor", tensor.name, "data of its own",
            "an overlap with tensor " + quoted(before.name));
  }
}

void Parser::fail_at(uint64_t offset, std::string_view kind, std::string_view name, std::string expected,
                     std::string found) const {
  throw Error({shard_.path, offset, std::string(kind) + " " + quoted(name), std::move(expected), std::move(found)});
}

}  // namespace

const Value *Shard::find_value(std::string_view key) const {
  for (const KeyValue &entry : metadata) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

Shard parse_shard(std::shared_ptr<const uint8_t> bytes, uint64_t size, std::string path) {
  return Parser(std::move(bytes), size, std::move(path)).parse();
}

}  // namespace rocforge::gguf
