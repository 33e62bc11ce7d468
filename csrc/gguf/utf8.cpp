#include "gguf/utf8.h"

#include <cstddef>

namespace rocforge::gguf {
namespace {

bool between(unsigned char byte, unsigned char low, unsigned char high) { return byte >= low && byte <= high; }

// Length of the sequence that a lead byte starts; 0: no lead byte.
size_t sequence_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (between(lead, 0xc2, 0xdf)) return 2;
  if (between(lead, 0xe0, 0xef)) return 3;
  return between(lead, 0xf0, 0xf4) ? 4 : 0;
}

// Four lead bytes narrow their second byte: the rest would be overlong, a surrogate, or above U+10FFFF.
bool second_byte_fits(unsigned char lead, unsigned char second) {
  switch (lead) {
    case 0xe0:
      return between(second, 0xa0, 0xbf);
    case 0xed:
      return between(second, 0x80, 0x9f);
    case 0xf0:
      return between(second, 0x90, 0xbf);
    case 0xf4:
      return between(second, 0x80, 0x8f);
    default:
      return between(second, 0x80, 0xbf);
  }
}

}  // namespace

bool is_utf8(std::string_view text) {
  const auto *bytes = reinterpret_cast<const unsigned char *>(text.data());
  for (size_t i = 0; i < text.size();) {
    const size_t length = sequence_length(bytes[i]);
    if (length == 0 || length > text.size() - i) return false;
    if (length > 1 && !second_byte_fits(bytes[i], bytes[i + 1])) return false;
    for (size_t k = 2; k < length; ++k) {
      if (!between(bytes[i + k], 0x80, 0xbf)) return false;
    }
    i += length;
  }
  return true;
}

}  // namespace rocforge::gguf
