#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(rocforge, m) {
  m.def("dequantize(Tensor packed, str format, ScalarType? dtype=None) -> Tensor");
}
