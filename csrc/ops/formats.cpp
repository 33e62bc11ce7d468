#include <torch/library.h>

#include <string>
#include <tuple>
#include <vector>

#include "formats/registry.h"

namespace rocforge {
namespace {

using FormatColumns =
    std::tuple<std::vector<std::string>, std::vector<int64_t>, std::vector<int64_t>, std::vector<int64_t>>;

FormatColumns list_formats() {
  FormatColumns columns;
  for (const formats::FormatInfo &format : formats::kFormats) {
    std::get<0>(columns).emplace_back(format.name);
    std::get<1>(columns).push_back(format.id);
    std::get<2>(columns).push_back(format.block_size);
    std::get<3>(columns).push_back(format.block_bytes);
  }
  return columns;
}

}  // namespace
}  // namespace rocforge

TORCH_LIBRARY_FRAGMENT(rocforge, m) {
  // The registry for Python: names, GGUF type ids (-1: none), weights per block, bytes per block.
  m.def("_formats() -> (str[], int[], int[], int[])", rocforge::list_formats);
}
