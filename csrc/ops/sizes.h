// Comparing sizes that may be symbols: argument checks serve kernels and, under torch.compile, their fakes too.
#pragma once

#include <ATen/core/Tensor.h>

namespace rocforge {

// What is not known before the graph runs is asserted there, and taken as true here.
inline bool holds(const c10::SymBool &condition) { return condition.expect_true(__FILE__, __LINE__); }
inline bool equal(const c10::SymInt &a, const c10::SymInt &b) { return holds(a.sym_eq(b)); }
inline bool equal(c10::SymIntArrayRef a, c10::SymIntArrayRef b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!equal(a[i], b[i])) return false;
  }
  return true;
}

}  // namespace rocforge
