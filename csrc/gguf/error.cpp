#include "gguf/error.h"

#include <utility>

namespace rocforge::gguf {
namespace {

std::string message(const Error::Details &details) {
  return details.path + ", byte " + std::to_string(details.offset) + ", " + details.subject + ": expected " +
         details.expected + ", found " + details.found;
}

}  // namespace

Error::Error(Details details) : std::runtime_error(message(details)), details_(std::move(details)) {}

std::string quoted(std::string_view text) {
  constexpr size_t kLongest = 80;
  constexpr char kHex[] = "0123456789abcdef";
  std::string result = "\"";
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      result += c;
    } else {
      result.append("\\x").append(1, kHex[byte >> 4]).append(1, kHex[byte & 15]);
    }
  }
  return result + (text.size() > kLongest ? "...\"" : "\"");
}

}  // namespace rocforge::gguf
