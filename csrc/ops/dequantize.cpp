#include "ops/dequantize.h"

#include <torch/library.h>

namespace rocforge {
namespace {

void check_dequantize_fake(const at::Tensor &packed, c10::string_view format, std::optional<at::ScalarType> dtype) {
  check_dequantize(packed, format, dtype);
}

}  // namespace
}  // namespace rocforge

TORCH_LIBRARY_FRAGMENT(rocforge, m) {
  m.def("dequantize(Tensor packed, str format, ScalarType? dtype=None) -> Tensor");
  // For the fake: the operator's errors, without data.
  m.def("_check_dequantize(Tensor packed, str format, ScalarType? dtype=None) -> ()", rocforge::check_dequantize_fake);
}
