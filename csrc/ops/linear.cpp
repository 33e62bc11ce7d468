#include "ops/linear.h"

#include <torch/library.h>

namespace rocforge {
namespace {

LinearDtypes dtypes_on(const at::Device &device) {
  return device.is_cuda() ? LinearDtypes::kUpToFloat32 : LinearDtypes::kFloat64Too;
}

void check_linear_fake(const at::Tensor &input, const at::Tensor &packed, c10::string_view format,
                       const std::optional<at::Tensor> &bias) {
  check_linear(input, packed, format, bias, dtypes_on(packed.device()));
}

void check_grouped_linear_fake(const at::Tensor &input, const at::Tensor &packed, c10::string_view format,
                               const at::Tensor &offsets) {
  check_grouped_linear(input, packed, format, offsets, dtypes_on(packed.device()));
}

}  // namespace
}  // namespace rocforge

TORCH_LIBRARY_FRAGMENT(rocforge, m) {
  m.def("linear(Tensor input, Tensor packed, str format, Tensor? bias=None) -> Tensor");
  m.def("linear_input_gradient(Tensor grad, Tensor packed, str format) -> Tensor");
  m.def("grouped_linear(Tensor input, Tensor packed, str format, Tensor offsets) -> Tensor");
  m.def("grouped_linear_input_gradient(Tensor grad, Tensor packed, str format, Tensor offsets) -> Tensor");
  // For the fakes: the operators' errors, without data.
  m.def("_check_linear(Tensor input, Tensor packed, str format, Tensor? bias=None) -> ()", rocforge::check_linear_fake);
  m.def("_check_grouped_linear(Tensor input, Tensor packed, str format, Tensor offsets) -> ()",
        rocforge::check_grouped_linear_fake);
}
