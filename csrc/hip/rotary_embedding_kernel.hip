// A thread rotates one pair, or copies one element behind the pairs. Neighbouring threads take neighbouring pairs.
#include "hip/gpu.h"
#include "hip/rotary_embedding.h"

namespace rocforge::gpu {
namespace {

constexpr int kThreads = 256;

// The type of the arithmetic, and conversions to and from it.
template <class T> struct Arithmetic {
  using type = float;
  static ROCFORGE_DEVICE float widen(T value) { return to_float(value); }
  static ROCFORGE_DEVICE T narrow(float value) { return from_float<T>(value); }
};
template <> struct Arithmetic<double> {
  using type = double;
  static ROCFORGE_DEVICE double widen(double value) { return value; }
  static ROCFORGE_DEVICE double narrow(double value) { return value; }
};

template <class T> ROCFORGE_DEVICE const T *row_of(const RotaryView &view, int64_t b, int64_t h, int64_t l) {
  return static_cast<const T *>(view.first) + b * view.strides[0] + h * view.strides[1] + l * view.strides[2];
}

template <class T, class Angle>
__global__ void __launch_bounds__(kThreads) rotary_kernel(const Rotary work, int64_t items_per_row, int64_t items) {
  using Math = Arithmetic<T>;
  using Wide = typename Math::type;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < items; i += step) {
    const int64_t row = i / items_per_row, item = i - row * items_per_row;
    const int64_t l = row % work.length, bh = row / work.length, h = bh % work.heads, b = bh / work.heads;
    const T *const x = row_of<T>(work.x, b, h, l);
    T *const out = static_cast<T *>(work.out) + row * work.head_dim;
    if (item >= work.pairs) {
      const int64_t copied = work.pairs + item;
      out[copied] = x[copied * work.x.strides[3]];
      continue;
    }
    const int64_t first = work.interleaved ? 2 * item : item, second = first + (work.interleaved ? 1 : work.pairs);
    const int64_t angle = item * work.angle_step;
    const Wide c =
        static_cast<Wide>(Arithmetic<Angle>::widen(row_of<Angle>(work.cos, b, h, l)[angle * work.cos.strides[3]]));
    const Wide s =
        static_cast<Wide>(Arithmetic<Angle>::widen(row_of<Angle>(work.sin, b, h, l)[angle * work.sin.strides[3]]));
    const Wide p = Math::widen(x[first * work.x.strides[3]]), q = Math::widen(x[second * work.x.strides[3]]);
    out[first] = Math::narrow(p * c - q * s);
    out[second] = Math::narrow(q * c + p * s);
  }
}

template <class T, class Angle> void launch_rotary(const Rotary &work, void *stream) {
  const int64_t items_per_row = work.head_dim - work.pairs;
  const int64_t items = work.batch * work.heads * work.length * items_per_row;
  const int64_t workgroups = (items + kThreads - 1) / kThreads, most = 64 * device_properties().compute_units;
  const auto grid = static_cast<unsigned>(workgroups < most ? workgroups : most);
  launch({"rotary_embedding", dim3(grid), kThreads, stream}, rotary_kernel<T, Angle>, work, items_per_row, items);
}

template <class T> void launch_rotary(const Rotary &work, void *stream) {
  if (work.angle_type == RotaryType::kFloat) return launch_rotary<T, float>(work, stream);
  launch_rotary<T, T>(work, stream);
}

}  // namespace

void rotate(const Rotary &work, void *stream) {
  switch (work.type) {
    case RotaryType::kDouble:
      return launch_rotary<double>(work, stream);
    case RotaryType::kFloat:
      return launch_rotary<float>(work, stream);
    case RotaryType::kHalf:
      return launch_rotary<f16>(work, stream);
    case RotaryType::kBFloat16:
      return launch_rotary<bf16>(work, stream);
  }
}

}  // namespace rocforge::gpu
