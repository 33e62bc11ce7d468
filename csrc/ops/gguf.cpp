// The container reader for Python (rocforge_ops/gguf.py). Lists cross as whole tensors: one call per file, not one per
// tensor or string.
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "gguf/file.h"

namespace rocforge {
namespace {

// Exceptions reach Python without their fields, so a refusal is a value: errno (0 for a malformed file), path, message,
// and for a malformed file its offset, subject, expected, found.
using Failure = std::tuple<int64_t, std::string, std::string, int64_t, std::string, std::string, std::string>;

template <class Function> std::optional<Failure> failure_of(Function &&function) {
  try {
    function();
    return std::nullopt;
  } catch (const gguf::Error &error) {
    const gguf::Error::Details &details = error.details();
    return Failure(0, details.path, error.what(), static_cast<int64_t>(details.offset), details.subject,
                   details.expected, details.found);
  } catch (const std::filesystem::filesystem_error &error) {
    return Failure(error.code().value(), error.path1(), error.code().message(), 0, "", "", "");
  }
}

// Strings as one uint8 tensor of their bytes and one int64 tensor [count] of their lengths.
class StringColumn {
 public:
  StringColumn(uint64_t bytes, uint64_t count)
      : text_(at::empty({static_cast<int64_t>(bytes)}, at::kByte)),
        lengths_(at::empty({static_cast<int64_t>(count)}, at::kLong)),
        text_end_(text_.mutable_data_ptr<uint8_t>()),
        length_end_(lengths_.mutable_data_ptr<int64_t>()) {}

  void push_back(std::string_view string) {
    text_end_ = std::copy(string.begin(), string.end(), text_end_);
    *length_end_++ = static_cast<int64_t>(string.size());
  }

  std::tuple<at::Tensor, at::Tensor> tensors() const { return {text_, lengths_}; }

 private:
  at::Tensor text_, lengths_;
  uint8_t *text_end_;
  int64_t *length_end_;
};

template <class Items, class GetName>
std::tuple<at::Tensor, at::Tensor> name_column(const Items &items, GetName &&name_of) {
  uint64_t bytes = 0;
  for (const auto &item : items) bytes += name_of(item).size();
  StringColumn column(bytes, items.size());
  for (const auto &item : items) column.push_back(name_of(item));
  return column.tensors();
}

class GGUFFile : public torch::CustomClassHolder {
 public:
  explicit GGUFFile(gguf::File file) : file_(std::move(file)) {}

  static std::tuple<std::optional<c10::intrusive_ptr<GGUFFile>>, std::optional<Failure>> open(const std::string &path) {
    std::optional<c10::intrusive_ptr<GGUFFile>> opened;
    auto failure = failure_of([&] { opened = c10::make_intrusive<GGUFFile>(gguf::File::open(path)); });
    return {std::move(opened), std::move(failure)};
  }

  std::optional<Failure> check_sizes() const {
    return failure_of([&] { file_.check_sizes(); });
  }

  int64_t version() const { return file_.version(); }
  int64_t alignment() const { return file_.alignment(); }

  std::tuple<at::Tensor, at::Tensor> keys() const {
    return name_column(file_.metadata(), [](const gguf::KeyValue &entry) { return entry.key; });
  }

  // GGUF type (of the elements, for an array), whether an array, and the value's bytes as in the file; for strings
  // those of the texts, with their lengths.
  std::tuple<int64_t, bool, at::Tensor, at::Tensor> value(int64_t index) const {
    const gguf::Value &value = file_.metadata().at(index).value;
    const bool strings = value.type == gguf::Type::kString;
    StringColumn column(value.bytes.size() - (strings ? value.count * sizeof(uint64_t) : 0), strings ? value.count : 0);
    if (strings) {
      value.for_each_string([&](std::string_view text) { column.push_back(text); });
    }
    auto [bytes, lengths] = column.tensors();
    if (!strings) std::copy(value.bytes.begin(), value.bytes.end(), bytes.mutable_data_ptr<uint8_t>());
    return {static_cast<int64_t>(value.type), value.is_array, bytes, lengths};
  }

  std::string describe(int64_t index) const { return file_.metadata().at(index).value.describe(); }

  std::tuple<at::Tensor, at::Tensor> tensor_names() const {
    return name_column(file_.tensors(), [](const gguf::Tensor &tensor) { return tensor.name; });
  }

  // int64 [tensors, 7]: position in the registry of formats, nbytes, n_dims, ne[0..3]
  at::Tensor tensor_infos() const {
    at::Tensor infos = at::empty({static_cast<int64_t>(file_.tensors().size()), 7}, at::kLong);
    int64_t *out = infos.mutable_data_ptr<int64_t>();
    for (const gguf::Tensor &tensor : file_.tensors()) {
      *out++ = tensor.format - formats::kFormats.data();
      *out++ = static_cast<int64_t>(tensor.nbytes);
      *out++ = tensor.n_dims;
      out = std::copy(tensor.ne.begin(), tensor.ne.end(), out);
    }
    return infos;
  }

  // uint8 [..., row_bytes] in torch's order: a view of the map, which lives as long as the tensor's storage.
  at::Tensor packed(int64_t index) const {
    const gguf::Tensor &tensor = file_.tensors().at(index);
    std::vector<int64_t> sizes(tensor.ne.rend() - tensor.n_dims, tensor.ne.rend());
    sizes.back() = tensor.row_bytes();
    // The map is copy-on-write, so that even a write through the tensor is sound.
    return at::from_blob(const_cast<uint8_t *>(tensor.data.get()), sizes, [map = tensor.data](void *) {}, at::kByte);
  }

 private:
  gguf::File file_;
};

}  // namespace
}  // namespace rocforge

TORCH_LIBRARY_FRAGMENT(rocforge, m) {
  using rocforge::GGUFFile;
  m.class_<GGUFFile>("GGUFFile")
      .def_static("open", &GGUFFile::open)
      .def("check_sizes", &GGUFFile::check_sizes)
      .def("version", &GGUFFile::version)
      .def("alignment", &GGUFFile::alignment)
      .def("keys", &GGUFFile::keys)
      .def("value", &GGUFFile::value)
      .def("describe", &GGUFFile::describe)
      .def("tensor_names", &GGUFFile::tensor_names)
      .def("tensor_infos", &GGUFFile::tensor_infos)
      .def("packed", &GGUFFile::packed);
}
