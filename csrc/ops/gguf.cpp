// The container reader for Python (rocforge_ops/gguf.py). Lists cross as whole tensors: one call per file, not one per
// tensor or string.
#include <ATen/ops/empty.h>
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
#include "rocforge/ops.h"

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

// Strings as one uint8 tensor of their bytes, each followed by a NUL, and one int64 tensor [count] of their lengths.
using StringColumn = std::tuple<at::Tensor, at::Tensor>;

// `for_each(visitor)` calls visitor(std::string_view) for every string.
template <class ForEach> StringColumn string_column(ForEach &&for_each) {
  int64_t bytes = 0, count = 0;
  for_each([&](std::string_view string) {
    bytes += static_cast<int64_t>(string.size()) + 1;
    ++count;
  });
  StringColumn column(at::empty({bytes}, at::kByte), at::empty({count}, at::kLong));
  auto *text = std::get<0>(column).mutable_data_ptr<uint8_t>();
  auto *length = std::get<1>(column).mutable_data_ptr<int64_t>();
  for_each([&](std::string_view string) {
    text = std::copy(string.begin(), string.end(), text);
    *text++ = 0;
    *length++ = static_cast<int64_t>(string.size());
  });
  return column;
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

  StringColumn keys() const {
    return string_column([&](auto &&visitor) {
      for (const gguf::KeyValue &entry : file_.metadata()) visitor(entry.key);
    });
  }

  // GGUF type (of the elements, for an array), whether an array, and the numbers as in the file or the strings.
  std::tuple<int64_t, bool, at::Tensor, at::Tensor> value(int64_t index) const {
    const gguf::Value &value = file_.metadata().at(index).value;
    StringColumn data;
    if (value.type == gguf::Type::kString) {
      data = string_column([&](auto &&visitor) { value.for_each_string(visitor); });
    } else {
      data = {at::empty({static_cast<int64_t>(value.bytes.size())}, at::kByte), at::empty({0}, at::kLong)};
      std::copy(value.bytes.begin(), value.bytes.end(), std::get<0>(data).mutable_data_ptr<uint8_t>());
    }
    return {static_cast<int64_t>(value.type), value.is_array, std::get<0>(data), std::get<1>(data)};
  }

  std::string describe(int64_t index) const { return file_.metadata().at(index).value.describe(); }

  StringColumn tensor_names() const {
    return string_column([&](auto &&visitor) {
      for (const gguf::Tensor &tensor : file_.tensors()) visitor(tensor.name);
    });
  }

  // int64 [7, tensors]: position in the registry of formats, nbytes, n_dims, ne[0..3]
  at::Tensor tensor_infos() const {
    const std::vector<gguf::Tensor> &tensors = file_.tensors();
    at::Tensor infos = at::empty({7, static_cast<int64_t>(tensors.size())}, at::kLong);
    int64_t *out = infos.mutable_data_ptr<int64_t>();
    const auto column = [&](auto &&value_of) { out = std::transform(tensors.begin(), tensors.end(), out, value_of); };
    column([](const gguf::Tensor &tensor) { return tensor.format - formats::kFormats.data(); });
    column([](const gguf::Tensor &tensor) { return static_cast<int64_t>(tensor.nbytes); });
    column([](const gguf::Tensor &tensor) { return tensor.n_dims; });
    for (size_t i = 0; i < 4; ++i) column([i](const gguf::Tensor &tensor) { return tensor.ne[i]; });
    return infos;
  }

  at::Tensor packed(int64_t index) const { return rocforge::packed(file_.tensors().at(index)); }

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
