// The part of the HIP runtime that the library calls, on a machine without a GPU: kernels are handed to a function that
// Python supplies. Loaded with LD_PRELOAD, so that it is found before libamdhip64.
#include <hip/hip_runtime.h>

#include <cstdlib>
#include <cstring>
#include <map>

namespace {

struct Kernel {
  const void *bundle;  // of code objects, one for each architecture
  const char *name;    // its symbol
};

struct Fatbin {
  uint32_t magic, version;
  const void *bundle;
  void *unused;
};

std::map<const void *, Kernel> &kernels() {
  static std::map<const void *, Kernel> all;
  return all;
}

using Execute = int (*)(const void *bundle, const char *name, const uint32_t *grid, const uint32_t *block,
                        void **arguments, size_t dynamic_lds);
Execute execute = nullptr;

}  // namespace

extern "C" {

void machine_code_set_executor(Execute executor) { execute = executor; }

void **__hipRegisterFatBinary(const void *fatbin) { return new void *(const_cast<void *>(fatbin)); }
void __hipUnregisterFatBinary(void **) {}
void __hipRegisterFunction(void **modules, const void *function, char *, const char *name, unsigned, void *, void *,
                           void *, void *, int *) {
  kernels()[function] = {static_cast<const Fatbin *>(*modules)->bundle, name};
}
hipError_t __hipPopCallConfiguration(dim3 *, dim3 *, size_t *, hipStream_t *) { return hipErrorNotSupported; }

hipError_t hipGetDevice(int *device) { return *device = 0, hipSuccess; }
hipError_t hipGetDeviceCount(int *count) { return *count = 1, hipSuccess; }
hipError_t hipGetDeviceProperties(hipDeviceProp_t *properties, int) {
  *properties = {};
  std::strncpy(properties->gcnArchName, std::getenv("ROCFORGE_MACHINE_CODE"), sizeof properties->gcnArchName - 1);
  return hipSuccess;
}
hipError_t hipDeviceGetAttribute(int *value, hipDeviceAttribute_t attribute, int) {
  if (attribute != hipDeviceAttributeMultiprocessorCount) return hipErrorInvalidValue;
  return *value = 4, hipSuccess;  // few: the tests are small, and still more than one workgroup's worth
}
hipError_t hipFuncSetAttribute(const void *, hipFuncAttribute, int) { return hipSuccess; }
hipError_t hipGetLastError() { return hipSuccess; }
const char *hipGetErrorString(hipError_t error) { return error == hipErrorNotSupported ? "not supported" : "failed"; }

hipError_t hipLaunchKernel(const void *function, dim3 grid, dim3 block, void **arguments, size_t dynamic_lds,
                           hipStream_t) {
  const auto kernel = kernels().find(function);
  if (kernel == kernels().end() || !execute) return hipErrorInvalidDeviceFunction;
  const uint32_t groups[] = {grid.x, grid.y, grid.z}, threads[] = {block.x, block.y, block.z};
  const bool ran = execute(kernel->second.bundle, kernel->second.name, groups, threads, arguments, dynamic_lds) == 0;
  return ran ? hipSuccess : hipErrorLaunchFailure;
}

}  // extern "C"
