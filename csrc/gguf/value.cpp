#include "gguf/value.h"

#include <array>
#include <bit>

namespace rocforge::gguf {
namespace {

static_assert(std::endian::native == std::endian::little, "values are read as they are stored");

template <class T> std::optional<uint64_t> load_unsigned(std::span<const uint8_t> bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  if (value < 0) return std::nullopt;
  return static_cast<uint64_t>(value);
}

}  // namespace

std::string_view type_name(Type type) {
  constexpr std::array<std::string_view, 13> kNames = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                       "bool", "string", "array", "u64", "i64", "f64"};
  return kNames[static_cast<size_t>(type)];
}

int type_bytes(Type type) {
  constexpr std::array<int, 13> kBytes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kBytes[static_cast<size_t>(type)];
}

std::string Value::describe() const {
  const std::string name(type_name(type));
  return is_array ? "array of " + std::to_string(count) + " " + name : name;
}

std::optional<uint64_t> Value::as_unsigned() const {
  if (is_array) return std::nullopt;
  switch (type) {
    case Type::kU8:
      return load_unsigned<uint8_t>(bytes);
    case Type::kI8:
      return load_unsigned<int8_t>(bytes);
    case Type::kU16:
      return load_unsigned<uint16_t>(bytes);
    case Type::kI16:
      return load_unsigned<int16_t>(bytes);
    case Type::kU32:
      return load_unsigned<uint32_t>(bytes);
    case Type::kI32:
      return load_unsigned<int32_t>(bytes);
    case Type::kU64:
      return load_unsigned<uint64_t>(bytes);
    case Type::kI64:
      return load_unsigned<int64_t>(bytes);
    default:
      return std::nullopt;
  }
}

std::optional<std::string_view> Value::as_string() const {
  if (is_array || type != Type::kString) return std::nullopt;
  std::string_view text;
  for_each_string([&](std::string_view value) { text = value; });
  return text;
}

}  // namespace rocforge::gguf
