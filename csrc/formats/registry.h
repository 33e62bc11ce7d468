// The only list of formats. Everything that enumerates formats (operators, reader, tests, documentation) reads it here.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "formats/iq1_m.h"
#include "formats/iq1_s.h"
#include "formats/iq2_s.h"
#include "formats/iq2_xs.h"
#include "formats/iq2_xxs.h"
#include "formats/iq3_s.h"
#include "formats/iq3_xxs.h"
#include "formats/iq4_nl.h"
#include "formats/iq4_xs.h"
#include "formats/mxfp4.h"
#include "formats/mxfp6_e2m3.h"
#include "formats/mxfp6_e3m2.h"
#include "formats/nvfp4.h"
#include "formats/plain.h"
#include "formats/q1_0.h"
#include "formats/q2_0.h"
#include "formats/q2_k.h"
#include "formats/q3_k.h"
#include "formats/q4_0.h"
#include "formats/q4_1.h"
#include "formats/q4_k.h"
#include "formats/q5_0.h"
#include "formats/q5_1.h"
#include "formats/q5_k.h"
#include "formats/q6_k.h"
#include "formats/q8_0.h"
#include "formats/q8_1.h"
#include "formats/q8_k.h"
#include "formats/tq1_0.h"
#include "formats/tq2_0.h"

namespace rocforge::formats {

template <class... Formats> struct TypeList {
  static constexpr int size = sizeof...(Formats);
};

// Adding a format is its header above and its name here.
using AllFormats = TypeList<F32, F16, BF16, F64, I8, I16, I32, I64, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q2_K, Q3_K,
                            Q4_K, Q5_K, Q6_K, Q8_K, IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, IQ4_NL,
                            IQ4_XS, TQ1_0, TQ2_0, MXFP4, NVFP4, Q1_0, Q2_0, MXFP6_E2M3, MXFP6_E3M2>;

struct FormatInfo {
  std::string_view name;
  int id;          // GGUF type; -1: none
  int block_size;  // weights
  int block_bytes;
};

template <class... Formats> constexpr std::array<FormatInfo, sizeof...(Formats)> describe(TypeList<Formats...>) {
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
    case 4:
      return "Q4_2";
    case 5:
      return "Q4_3";
    case 31:
      return "Q4_0_4_4";
    case 32:
      return "Q4_0_4_8";
    case 33:
      return "Q4_0_8_8";
    case 36:
      return "IQ4_NL_4_4";
    case 37:
      return "IQ4_NL_4_8";
    case 38:
      return "IQ4_NL_8_8";
    default:
      return {};
  }
}

// Calls visitor(Format{}) for the format at `index` of kFormats; false: there is no such index.
template <class Visitor, class... Formats> bool visit(int index, Visitor &&visitor, TypeList<Formats...>) {
  int i = 0;
  return ((i++ == index && (visitor(Formats{}), true)) || ...);
}
template <class Visitor> bool visit(int index, Visitor &&visitor) { return visit(index, visitor, AllFormats{}); }

}  // namespace rocforge::formats
