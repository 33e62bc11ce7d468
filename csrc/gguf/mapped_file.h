// A regular file mapped into memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

namespace rocforge::gguf {

// The map is private and copy-on-write: a write into it changes this process's pages, never the file.
class MappedFile {
 public:
  // std::filesystem::filesystem_error when the system refuses, Error when it is not a regular file or empty.
  explicit MappedFile(std::filesystem::path path);
  ~MappedFile();
  MappedFile(const MappedFile &) = delete;
  MappedFile &operator=(const MappedFile &) = delete;

  std::span<const uint8_t> bytes() const { return bytes_; }

  // Error when the file no longer has the size that was mapped. Touching a page past the new end would be a SIGBUS.
  void check_size() const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::span<uint8_t> bytes_;
};

}  // namespace rocforge::gguf
