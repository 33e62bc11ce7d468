// The device that a tensor is on, made current, and PyTorch's stream on it. For host files of csrc/hip.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

// ROCm builds of PyTorch use the key CUDA too. The emulation registers under CPU, in the place of the reference.
#ifndef ROCFORGE_GPU_KEY
  #define ROCFORGE_GPU_KEY CUDA
#endif

namespace rocforge {

// Keeps `device` current for its lifetime.
class DeviceStream {
 public:
  explicit DeviceStream(c10::Device device) : guard_(device) {
    if (device.is_cuda()) {
      stream_ = c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle();
    }
  }
  void *get() const { return stream_; }

 private:
  c10::DeviceGuard guard_;
  void *stream_ = nullptr;
};

}  // namespace rocforge
