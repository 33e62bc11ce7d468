#include <torch/library.h>

TORCH_LIBRARY_FRAGMENT(rocforge, m) {
  m.def("rotary_embedding(Tensor x, Tensor cos, Tensor sin, bool interleaved=False) -> Tensor");
}
