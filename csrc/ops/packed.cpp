#include "ops/packed.h"

#include <algorithm>
#include <cctype>
#include <numeric>
#include <string>
#include <vector>

namespace rocforge {
namespace {

int edit_distance(std::string_view a, std::string_view b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    int diagonal = row[0]++;
    for (size_t j = 0; j < b.size(); ++j) {
      const int substitution = diagonal + (std::toupper(a[i]) != std::toupper(b[j]));
      diagonal = row[j + 1];
      row[j + 1] = std::min({substitution, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

// The names within two edits (case aside) of an unknown one, or all of them when none is near.
std::string suggestions(std::string_view unknown) {
  std::string near, all;
  for (const formats::FormatInfo &format : formats::kFormats) {
    std::string &list = unknown.size() < 64 && edit_distance(unknown, format.name) <= 2 ? near : all;
    list.append(list.empty() ? "" : ", ").append(format.name);
  }
  return near.empty() ? "the formats are " + all : "did you mean " + near + "?";
}

}  // namespace

int check_format(std::string_view name) {
  const int index = formats::find(name);
  TORCH_CHECK_VALUE(index >= 0, "unknown format '", name.substr(0, 64), "': ", suggestions(name));
  return index;
}

void check_packed(const at::Tensor &packed, const formats::FormatInfo &format) {
  TORCH_CHECK_TYPE(packed.scalar_type() == at::kByte, "packed weights must be uint8, got ", packed.scalar_type());
  TORCH_CHECK_VALUE(packed.dim() >= 1, "packed weights must be [..., row_bytes], got a 0-dimensional tensor");
  TORCH_CHECK_VALUE(equal(packed.sym_size(-1) % format.block_bytes, 0), "a row of ", format.name,
                    " is a whole number of ", format.block_bytes, "-byte blocks, got rows of ", packed.sym_size(-1),
                    " bytes");
  TORCH_CHECK_VALUE(holds(packed.sym_size(-1).sym_le(1).sym_or(packed.sym_stride(-1).sym_eq(1))),
                    "the last dimension of packed weights must be contiguous, got stride ", packed.sym_stride(-1));
}

at::ScalarType check_out_dtype(std::optional<at::ScalarType> dtype) {
  const at::ScalarType type = dtype.value_or(at::kFloat);
  TORCH_CHECK_VALUE(type == at::kFloat || type == at::kHalf || type == at::kBFloat16,
                    "dtype must be float32, float16 or bfloat16, got ", type);
  return type;
}

}  // namespace rocforge
