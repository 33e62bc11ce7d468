// The one error of a malformed file.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace rocforge::gguf {

// what() reads: <path>, byte <offset>, <subject>: expected <expected>, found <found>
class Error : public std::runtime_error {
 public:
  struct Details {
    std::string path;
    uint64_t offset;      // byte of the file where the refused value stands
    std::string subject;  // key "...", tensor "...", or header
    std::string expected;
    std::string found;
  };

  explicit Error(Details details);

  const Details &details() const { return details_; }

 private:
  Details details_;
};

// `text` between double quotes for a message: every byte that is not printable ASCII as \xNN, long texts cut.
std::string quoted(std::string_view text);

}  // namespace rocforge::gguf
