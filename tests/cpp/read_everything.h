// Touches all that an opened GGUF file gives out, for the sanitizers to watch.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "gguf/file.h"
#include "gguf/utf8.h"

namespace rocforge::gguf {

inline void require(bool condition) {
  if (!condition) std::abort();
}

// A sum of the bytes read, so that no compiler leaves them out.
inline uint64_t read_everything(const File &file) {
  uint64_t sum = file.version() + file.alignment();
  for (const auto &[key, value] : file.metadata()) {
    require(!key.empty() && is_utf8(key) && file.find_value(key) != nullptr);
    sum += value.describe().size() + value.as_unsigned().value_or(0) + value.as_string().value_or("").size();
    for (const uint8_t byte : value.bytes) sum += byte;
    if (value.type != Type::kString) continue;
    value.for_each_string([&](std::string_view text) {
      for (const char c : text) sum += static_cast<unsigned char>(c);
    });
  }
  for (const Tensor &tensor : file.tensors()) {
    require(!tensor.name.empty() && is_utf8(tensor.name) && file.find_tensor(tensor.name) == &tensor);
    uint64_t nbytes = tensor.row_bytes();
    for (size_t i = 1; i < tensor.ne.size(); ++i) {
      require(tensor.ne[i] > 0 && !__builtin_mul_overflow(nbytes, tensor.ne[i], &nbytes));
    }
    require(nbytes == tensor.nbytes && nbytes > 0);
    for (uint64_t i = 0; i < tensor.nbytes; ++i) sum += tensor.data.get()[i];
  }
  return sum;
}

}  // namespace rocforge::gguf
