// Prints what a GGUF file holds: list_tensors model.gguf
#include <rocforge/gguf.h>

#include <cinttypes>
#include <cstdio>
#include <exception>

int main(int argc, char **argv) try {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s model.gguf\n", argv[0]);
    return 2;
  }
  const auto file = rocforge::gguf::File::open(argv[1]);
  if (const auto *value = file.find_value("general.architecture")) {
    const std::string_view architecture = value->as_string().value_or("unknown");
    std::printf("architecture %.*s\n", static_cast<int>(architecture.size()), architecture.data());
  }
  for (const auto &tensor : file.tensors()) {
    std::printf("%-32.*s %-8s", static_cast<int>(tensor.name.size()), tensor.name.data(),
                std::string(tensor.format->name).c_str());
    for (int dim = tensor.n_dims - 1; dim >= 0; --dim) std::printf(" %" PRId64, tensor.ne[dim]);
    std::printf("\n");
  }
  return 0;
} catch (const std::exception &error) {  // gguf::Error: a malformed file; filesystem_error: none that can be read
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
