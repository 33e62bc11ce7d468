// Memory that host and device code share, for the checks in this folder: they run on a GPU (device_test.hip) and in the
// emulation (tests/emulation).
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>
#include <string>

#include "hip/gpu.h"

namespace rocforge::gpu {

// `count` values, all bytes zero; ends exactly at the last one.
template <class T> class Buffer {
 public:
  explicit Buffer(size_t count) : count_(count) {
#if defined(ROCFORGE_EMULATE)
    data_ = static_cast<T *>(std::malloc(count * sizeof(T)));
    if (!data_) throw std::bad_alloc();
#else
    void *memory;
    check(ROCFORGE_RUNTIME(MallocManaged)(&memory, count * sizeof(T), ROCFORGE_RUNTIME(MemAttachGlobal)),
          "managed memory");
    data_ = static_cast<T *>(memory);
#endif
    for (size_t i = 0; i < count * sizeof(T); ++i) reinterpret_cast<unsigned char *>(data_)[i] = 0;
  }
  Buffer(const Buffer &) = delete;
  ~Buffer() {
#if defined(ROCFORGE_EMULATE)
    std::free(data_);
#else
    (void)ROCFORGE_RUNTIME(Free)(data_);
#endif
  }
  T *get() { return data_; }
  T &operator[](size_t i) { return data_[i]; }
  size_t size() const { return count_; }

 private:
  T *data_;
  size_t count_;
};

// Waits for the kernels launched so far.
inline void finish() {
#if !defined(ROCFORGE_EMULATE)
  check(ROCFORGE_RUNTIME(DeviceSynchronize)(), "kernel");
#endif
}

// The first mismatch of a check, or nothing.
using Failure = std::string;

}  // namespace rocforge::gpu
