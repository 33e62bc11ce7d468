#include "gguf/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include "gguf/error.h"

namespace rocforge::gguf {
namespace {

static_assert(sizeof(size_t) == 8, "files are larger than a 32-bit address space");

[[noreturn]] void throw_system_error(const char *what, const std::filesystem::path &path, int code) {
  throw std::filesystem::filesystem_error(what, path, std::error_code(code, std::generic_category()));
}

// Closes the descriptor of a MappedFile whose constructor does not finish.
class Descriptor {
 public:
  // O_NONBLOCK: opening a FIFO must not wait for a writer. It means nothing to a regular file.
  explicit Descriptor(const std::filesystem::path &path)
      : value_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (value_ < 0) throw_system_error("cannot open", path, errno);
  }
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor &) = delete;
  Descriptor &operator=(const Descriptor &) = delete;

  int get() const { return value_; }
  int release() { return std::exchange(value_, -1); }

 private:
  int value_;
};

struct ::stat status_of(int descriptor, const std::filesystem::path &path) {
  struct ::stat status;
  if (::fstat(descriptor, &status) != 0) throw_system_error("cannot stat", path, errno);
  return status;
}

}  // namespace

MappedFile::MappedFile(std::filesystem::path path) : path_(std::move(path)) {
  Descriptor descriptor(path_);
  const struct ::stat status = status_of(descriptor.get(), path_);
  if (S_ISDIR(status.st_mode)) throw_system_error("cannot read", path_, EISDIR);
  if (!S_ISREG(status.st_mode)) throw Error({path_, 0, "file", "a regular file", "a pipe, socket or device"});
  if (status.st_size == 0) throw Error({path_, 0, "file", "a GGUF file", "an empty file"});

  // MAP_NORESERVE: copy-on-write pages are the exception, so a map larger than free memory must not be refused.
  const auto size = static_cast<size_t>(status.st_size);
  void *address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, descriptor.get(), 0);
  if (address == MAP_FAILED) throw_system_error("cannot map", path_, errno);
  bytes_ = {static_cast<uint8_t *>(address), size};
  descriptor_ = descriptor.release();
}

MappedFile::~MappedFile() {
  ::munmap(bytes_.data(), bytes_.size());
  ::close(descriptor_);
}

void MappedFile::check_size() const {
  const auto size = static_cast<uint64_t>(status_of(descriptor_, path_).st_size);
  if (size == bytes_.size()) return;
  throw Error({path_, size, "file",
               "the " + std::to_string(bytes_.size()) + " bytes that were there when it was opened",
               std::to_string(size) + " bytes"});
}

}  // namespace rocforge::gguf
