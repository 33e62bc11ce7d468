// Metadata values, left where they are in the map.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace rocforge::gguf {

enum class Type : int32_t {  // as stored in files
  kU8 = 0,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
};

std::string_view type_name(Type type);

// Bytes of a number or bool; 0 for strings and arrays, whose length is stored with them.
int type_bytes(Type type);

struct Value {
  Type type;  // of the elements when is_array; never kArray
  bool is_array;
  uint64_t count;                  // elements; 1 unless is_array
  std::span<const uint8_t> bytes;  // in the map, at any alignment: little-endian numbers, bools of one byte (0 is
                                   // false), or strings one after another, each a u64 length and its bytes

  std::string describe() const;                       // "u32", "array of 3 string": for messages
  std::optional<uint64_t> as_unsigned() const;        // one integer of any type that is not negative
  std::optional<std::string_view> as_string() const;  // one string

  // Calls visitor(std::string_view) for every string, in order. The type must be kString.
  template <class Visitor> void for_each_string(Visitor &&visitor) const {
    const uint8_t *at = bytes.data();
    for (uint64_t i = 0; i < count; ++i) {
      uint64_t length;
      std::memcpy(&length, at, sizeof length);
      visitor(std::string_view(reinterpret_cast<const char *>(at) + sizeof length, length));
      at += sizeof length + length;
    }
  }
};

struct KeyValue {
  std::string_view key;  // UTF-8, in the map
  Value value;
};

}  // namespace rocforge::gguf
