#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(rocforge, m) {
  m.def("linear(Tensor input, Tensor packed, str format, Tensor? bias=None) -> Tensor");
  m.def("linear_input_gradient(Tensor grad, Tensor packed, str format) -> Tensor");
  m.def("grouped_linear(Tensor input, Tensor packed, str format, Tensor offsets) -> Tensor");
  m.def("grouped_linear_input_gradient(Tensor grad, Tensor packed, str format, Tensor offsets) -> Tensor");
}
