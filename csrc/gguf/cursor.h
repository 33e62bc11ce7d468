// Reads a file front to back, never past its end.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "gguf/error.h"

namespace rocforge::gguf {

class Cursor {
 public:
  // `path` is for messages.
  Cursor(std::span<const uint8_t> bytes, const std::string &path) : bytes_(bytes), path_(path) {}

  uint64_t offset() const { return at_; }
  uint64_t remaining() const { return bytes_.size() - at_; }

  // What the following reads belong to. `name` must outlive them.
  void set_subject(const char *kind, std::string_view name = {}) {
    kind_ = kind;
    name_ = name;
  }

  // `what` names the item for the message of a file that ends too early.
  template <class T> T read(const char *what) {
    T value;
    std::memcpy(&value, read_bytes(sizeof value, what).data(), sizeof value);
    return value;
  }

  std::span<const uint8_t> read_bytes(uint64_t size, const char *what);

  // A number of items of at least `item_bytes` each, all of which must fit into the rest of the file.
  uint64_t read_count(uint64_t item_bytes, const char *what);

  std::string_view read_string(const char *what);

  // Error about the item read last.
  [[noreturn]] void fail(std::string expected, std::string found) const;

 private:
  std::span<const uint8_t> bytes_;
  const std::string &path_;
  const char *kind_ = "header";
  std::string_view name_;
  uint64_t at_ = 0;
  uint64_t item_ = 0;  // where the item read last starts
};

}  // namespace rocforge::gguf
