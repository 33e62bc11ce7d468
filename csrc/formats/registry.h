// The only list of formats. Everything that enumerates formats (operators, reader, tests, documentation) reads it here.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "formats/plain.h"
#include "formats/q4_0.h"
#include "formats/q8_0.h"

namespace rocforge::formats {

template <class... Formats>
struct TypeList {
  static constexpr int size = sizeof...(Formats);
};

using AllFormats = TypeList<  //
    F32, F16, BF16, F64, I8, I16, I32, I64,  //
    Q4_0, Q8_0>;

struct FormatInfo {
  std::string_view name;
  int id;           // GGUF type; -1: none
  int block_size;   // weights
  int block_bytes;
};

template <class... Formats>
constexpr std::array<FormatInfo, sizeof...(Formats)> describe(TypeList<Formats...>) {
  static_assert(((alignof(typename Formats::Block) == 1) && ...), "a block may start at any byte");
  return {{{Formats::name, Formats::id, Formats::block_size, static_cast<int>(sizeof(typename Formats::Block))}...}};
}
inline constexpr auto kFormats = describe(AllFormats{});

// Position in kFormats of the format of that exact name, or of that GGUF type; -1: there is none.
constexpr int find(std::string_view name) {
  for (int i = 0; i < AllFormats::size; ++i) {
    if (kFormats[i].name == name) return i;
  }
  return -1;
}
constexpr int find(uint32_t id) {
  for (int i = 0; i < AllFormats::size; ++i) {
    if (kFormats[i].id >= 0 && static_cast<uint32_t>(kFormats[i].id) == id) return i;
  }
  return -1;
}

// GGUF types that once existed; empty for any other id.
constexpr std::string_view removed_type(uint32_t id) {
  switch (id) {
    case 4: return "Q4_2";
    case 5: return "Q4_3";
    case 31: return "Q4_0_4_4";
    case 32: return "Q4_0_4_8";
    case 33: return "Q4_0_8_8";
    case 36: return "IQ4_NL_4_4";
    case 37: return "IQ4_NL_4_8";
    case 38: return "IQ4_NL_8_8";
    default: return {};
  }
}

// Calls visitor(Format{}) for the format at `index` of kFormats; false: there is no such index.
template <class Visitor, class... Formats>
bool visit(int index, Visitor &&visitor, TypeList<Formats...>) {
  int i = 0;
  return ((i++ == index && (visitor(Formats{}), true)) || ...);
}
template <class Visitor>
bool visit(int index, Visitor &&visitor) {
  return visit(index, visitor, AllFormats{});
}

}  // namespace rocforge::formats
