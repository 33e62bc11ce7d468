#include "gguf/cursor.h"

#include <utility>

namespace rocforge::gguf {

std::span<const uint8_t> Cursor::read_bytes(uint64_t size, const char *what) {
  item_ = at_;
  if (size > remaining()) {
    fail(std::to_string(size) + " bytes of " + what,
         "the end of the file after " + std::to_string(remaining()) + " (truncated file or unfinished download?)");
  }
  at_ += size;
  return bytes_.subspan(item_, size);
}

uint64_t Cursor::read_count(uint64_t item_bytes, const char *what) {
  const auto count = read<uint64_t>(what);
  if (count > remaining() / item_bytes) {
    fail(std::string("a ") + what + " of at most " + std::to_string(remaining() / item_bytes) + ", as " +
             std::to_string(remaining()) + " bytes remain",
         std::to_string(count));
  }
  return count;
}

std::string_view Cursor::read_string(const char *what) {
  const uint64_t length = read_count(1, what);
  const uint64_t start = item_;
  const std::span<const uint8_t> text = read_bytes(length, what);
  item_ = start;  // a message about a string points at its length
  return {reinterpret_cast<const char *>(text.data()), text.size()};
}

void Cursor::fail(std::string expected, std::string found) const {
  std::string subject = kind_;
  if (!name_.empty()) subject += " " + quoted(name_);
  throw Error({path_, item_, std::move(subject), std::move(expected), std::move(found)});
}

}  // namespace rocforge::gguf
