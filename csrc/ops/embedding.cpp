#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(rocforge, m) {
  m.def("embedding(Tensor packed, str format, Tensor indices, ScalarType? dtype=None) -> Tensor");
}
