#include <ATen/core/Tensor.h>
#include <torch/library.h>

namespace rocforge {
namespace {

// One copy through PyTorch's own strided copy, so one implementation serves every device.
at::Tensor repeat_kv(const at::Tensor &x, int64_t n_rep) {
  TORCH_CHECK_VALUE(x.dim() == 4, "x must be [batch, kv_heads, length, head_dim], got ", x.sizes());
  TORCH_CHECK_VALUE(n_rep >= 1, "n_rep must be at least 1, got ", n_rep);
  const int64_t batch = x.size(0), heads = x.size(1), length = x.size(2), head_dim = x.size(3);
  const at::Tensor repeated = x.unsqueeze(2).expand({batch, heads, n_rep, length, head_dim});
  return repeated.clone(at::MemoryFormat::Contiguous).view({batch, heads * n_rep, length, head_dim});
}

}  // namespace
}  // namespace rocforge

TORCH_LIBRARY_FRAGMENT(rocforge, m) { m.def("repeat_kv(Tensor x, int n_rep) -> Tensor"); }
TORCH_LIBRARY_IMPL(rocforge, CompositeExplicitAutograd, m) { m.impl("repeat_kv", rocforge::repeat_kv); }
