#include "ops/embedding.h"

#include <torch/library.h>

namespace rocforge {
namespace {

void check_embedding_fake(const at::Tensor &packed, c10::string_view format, const at::Tensor &indices,
                          std::optional<at::ScalarType> dtype) {
  check_embedding(packed, format, indices, dtype);
}

}  // namespace
}  // namespace rocforge

TORCH_LIBRARY_FRAGMENT(rocforge, m) {
  m.def("embedding(Tensor packed, str format, Tensor indices, ScalarType? dtype=None) -> Tensor");
  // For the fake: the operator's errors, without data.
  m.def("_check_embedding(Tensor packed, str format, Tensor indices, ScalarType? dtype=None) -> ()",
        rocforge::check_embedding_fake);
}
