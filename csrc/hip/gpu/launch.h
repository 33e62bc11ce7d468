// Host side of the device language on a GPU: checked launches and what the current device is. Included by gpu.h only.
#pragma once

#include <mutex>
#include <stdexcept>
#include <string>

namespace rocforge::gpu {

inline void check(ROCFORGE_RUNTIME(Error_t) error, const char *what) {
  if (error == ROCFORGE_RUNTIME(Success)) return;
  int devices = 0;
  const bool no_gpu = ROCFORGE_RUNTIME(GetDeviceCount)(&devices) != ROCFORGE_RUNTIME(Success) || devices == 0;
  (void)ROCFORGE_RUNTIME(GetLastError)();  // or the caller's next check would find this error again
  throw std::runtime_error(std::string(no_gpu ? "no GPU on this machine: " : "") + what + ": " +
                           ROCFORGE_RUNTIME(GetErrorString)(error));
}

// Properties of the current device.
inline const DeviceProperties &device_properties() {
  constexpr int kMaxDevices = 64;
  static DeviceProperties devices[kMaxDevices];
  static std::once_flag known[kMaxDevices];
  int device;
  check(ROCFORGE_RUNTIME(GetDevice)(&device), "current GPU");
  if (device >= kMaxDevices) throw std::runtime_error("GPU " + std::to_string(device) + ": at most 64 are supported");
  std::call_once(known[device], [&] {
    std::string name;
    check(get_arch_name(device, name), "architecture of the GPU");
    const Arch arch = arch_named(name);
    int compute_units;
    check(ROCFORGE_RUNTIME(DeviceGetAttribute)(&compute_units, kComputeUnitCount, device), "compute units of the GPU");
    devices[device] = {arch, wave_size(arch), compute_units};
  });
  return devices[device];
}

// Starts kernel(arguments...), each argument converted to the type of its parameter. An error of the launch itself is a
// std::runtime_error; one inside the kernel surfaces where the stream is next waited for, as with every GPU kernel.
template <class... Parameters>
void launch(const Launch &config, void (*kernel)(Parameters...), typename Identity<Parameters>::type... arguments) {
  const auto *const function = reinterpret_cast<const void *>(kernel);
  if (config.dynamic_lds > kDynamicLdsUnasked) {
    check(ROCFORGE_RUNTIME(FuncSetAttribute)(function, kDynamicLdsLimit, static_cast<int>(config.dynamic_lds)),
          config.kernel);
  }
  void *pointers[] = {&arguments..., nullptr};  // never empty
  check(ROCFORGE_RUNTIME(LaunchKernel)(function, config.grid, dim3(config.threads), pointers, config.dynamic_lds,
                                       static_cast<ROCFORGE_RUNTIME(Stream_t)>(config.stream)),
        config.kernel);
}

}  // namespace rocforge::gpu
