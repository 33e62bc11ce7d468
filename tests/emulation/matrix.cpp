// The matrix instructions. Their register layouts are written down here a second time, and the other way round than in
// csrc/hip/mma.h: for an element of the matrix, the lane and the register that hold it.
#include <cstring>
#include <string>
#include <type_traits>

#include "workgroup.h"

namespace emu {
namespace {

struct Place {
  int lane, index;
};

struct Layout {
  const char *name;
  int wave_size, m, n;
  int k16, k8;  // depths for 16-bit and for 8-bit elements; MFMA has twice the latter as well
  int copies;   // lanes l and l + 16 hold the same A and B where it is 2
  Place (*a)(int row, int k, int depth);
  Place (*b)(int k, int col, int depth);
  Place (*c)(int row, int col);
};

// Wave 64: the k dimension is cut into 4 (or 2) pieces, one for each group of 16 (or 32) lanes.
template <int size> Place mfma_operand(int row_or_col, int k, int depth) {
  const int piece = depth / (64 / size);
  return {row_or_col + size * (k / piece), k % piece};
}

// mma.sync: lane = 4 * group + member. 4 bytes of a row lie in one register; members split 16 bytes of it.
Place mma_sync_operand(int row_or_col, int k, int depth, int halves) {
  const int run = depth / 8, half = k / (depth / 2);
  return {row_or_col % 8 * 4 + k % (depth / 2) / run, k % run + run * (row_or_col / 8 + halves * half)};
}

constexpr Layout kLayouts[] = {
    {"mfma 16x16", 64, 16, 16, 16, 16, 1, mfma_operand<16>,
     [](int k, int col, int depth) { return mfma_operand<16>(col, k, depth); },
     [](int row, int col) { return Place{col + 16 * (row / 4), row % 4}; }},
    {"mfma 32x32", 64, 32, 32, 8, 8, 1, mfma_operand<32>,
     [](int k, int col, int depth) { return mfma_operand<32>(col, k, depth); },
     [](int row, int col) { return Place{col + 32 * (row / 4 % 2), row % 4 + row / 8 * 4}; }},
    {"wmma gfx11", 32, 16, 16, 16, 16, 2, [](int row, int k, int) { return Place{row, k}; },
     [](int k, int col, int) { return Place{col, k}; },
     [](int row, int col) { return Place{col + 16 * (row % 2), row / 2}; }},
    {"wmma gfx12", 32, 16, 16, 16, 16, 1, [](int row, int k, int) { return Place{row + 16 * (k / 8), k % 8}; },
     [](int k, int col, int) { return Place{col + 16 * (k / 8), k % 8}; },
     [](int row, int col) { return Place{col + 16 * (row / 8), row % 8}; }},
    {"mma.sync", 32, 16, 8, 16, 32, 1, [](int row, int k, int depth) { return mma_sync_operand(row, k, depth, 2); },
     [](int k, int col, int depth) { return mma_sync_operand(col, k, depth, 1); },
     [](int row, int col) { return Place{row % 8 * 4 + col / 2, col % 2 + row / 8 * 2}; }},
};

template <Element element> auto widen(const void *values, int index) {
  if constexpr (element == Element::i8) {
    return static_cast<int32_t>(static_cast<const int8_t *>(values)[index]);
  } else {
    const uint16_t half = static_cast<const uint16_t *>(values)[index];
    const uint32_t upper_half = uint32_t{half} << 16;
    float value;
    if constexpr (element == Element::f16) {
      _Float16 narrow;
      memcpy(&narrow, &half, sizeof half);
      value = narrow;
    } else {
      memcpy(&value, &upper_half, sizeof value);
    }
    return value;
  }
}

void require_copies(const Layout &layout, const Posted *lanes, size_t operand_bytes) {
  for (int lane = 0; layout.copies == 2 && lane < 16; ++lane) {
    const auto *const low = static_cast<const MatrixOperands *>(lanes[lane].in);
    const auto *const high = static_cast<const MatrixOperands *>(lanes[lane + 16].in);
    if (memcmp(low->a, high->a, operand_bytes) || memcmp(low->b, high->b, operand_bytes)) {
      stop(std::string(layout.name) + ": lanes l and l + 16 hold different operands, " + describe_running());
    }
  }
}

template <Element element, MatrixUnit unit, int depth>
void finish(const WaveOperation &, const Posted *lanes, int wave_size) {
  using Sum = std::conditional_t<element == Element::i8, int32_t, float>;
  constexpr Layout layout = kLayouts[static_cast<int>(unit)];
  constexpr int m = layout.m, n = layout.n;
  if (wave_size != layout.wave_size)
    stop(std::string(layout.name) + " in a wave of another size, " + describe_running());
  require_copies(layout, lanes, depth * (element == Element::i8 ? 1 : 2));

  const auto operands = [&](Place place) { return static_cast<const MatrixOperands *>(lanes[place.lane].in); };
  Sum a[m][depth], b[depth][n], c[m][n];
  for (int row = 0; row < m; ++row) {
    for (int k = 0; k < depth; ++k) {
      const Place place = layout.a(row, k, depth);
      a[row][k] = widen<element>(operands(place)->a, place.index);
    }
    for (int col = 0; col < n; ++col) {
      const Place place = layout.c(row, col);
      c[row][col] = static_cast<const Sum *>(operands(place)->c)[place.index];
    }
  }
  for (int k = 0; k < depth; ++k) {
    for (int col = 0; col < n; ++col) {
      const Place place = layout.b(k, col, depth);
      b[k][col] = widen<element>(operands(place)->b, place.index);
    }
  }
  for (int row = 0; row < m; ++row) {
    for (int k = 0; k < depth; ++k) {
      for (int col = 0; col < n; ++col) c[row][col] += a[row][k] * b[k][col];
    }
    for (int col = 0; col < n; ++col) {
      const Place place = layout.c(row, col);
      static_cast<Sum *>(lanes[place.lane].out)[place.index] = c[row][col];
    }
  }
}

using Finish = decltype(WaveOperation::finish);

template <MatrixUnit unit> Finish finish_of(Element element, int depth) {
  constexpr Layout layout = kLayouts[static_cast<int>(unit)];
  constexpr bool is_mfma = unit == MatrixUnit::mfma_16x16 || unit == MatrixUnit::mfma_32x32;
  if (element == Element::f16 && depth == layout.k16) return finish<Element::f16, unit, layout.k16>;
  if (element == Element::bf16 && depth == layout.k16) return finish<Element::bf16, unit, layout.k16>;
  if (element == Element::i8 && depth == layout.k8) return finish<Element::i8, unit, layout.k8>;
  if constexpr (is_mfma) {
    if (element == Element::i8 && depth == 2 * layout.k8) return finish<Element::i8, unit, 2 * layout.k8>;
  }
  return nullptr;
}

Finish finish_of(MatrixUnit unit, Element element, int depth) {
  switch (unit) {
    case MatrixUnit::mfma_16x16:
      return finish_of<MatrixUnit::mfma_16x16>(element, depth);
    case MatrixUnit::mfma_32x32:
      return finish_of<MatrixUnit::mfma_32x32>(element, depth);
    case MatrixUnit::wmma_gfx11:
      return finish_of<MatrixUnit::wmma_gfx11>(element, depth);
    case MatrixUnit::wmma_gfx12:
      return finish_of<MatrixUnit::wmma_gfx12>(element, depth);
    default:
      return finish_of<MatrixUnit::mma_sync>(element, depth);
  }
}

}  // namespace

void multiply(MatrixUnit unit, Element element, int k, const MatrixOperands &operands, void *d, Site site) {
  const Layout &layout = kLayouts[static_cast<int>(unit)];
  const Finish finish = finish_of(unit, element, k);
  if (!finish) {
    const InRuntime scope;
    stop(std::string("no such instruction: ") + layout.name + ", " + std::to_string(k) + " deep", site);
  }
  meet_wave({layout.name, 0, finish}, {&operands, d, 0}, site);
}

}  // namespace emu
