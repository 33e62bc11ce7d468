// What the parts of the emulation share: the running thread, how it waits for others and how a launch is given up.
#pragma once

#include <cstdint>
#include <string>

#include "emu.h"

namespace emu {

// Where the running thread stands in the order of memory accesses.
struct Running {
  bool in_kernel;      // false while the emulation itself runs: its accesses are not the kernel's
  uint64_t launch;     // serial number, from 1
  uint32_t workgroup;  // linear index in the grid
  uint16_t thread, wave;
  uint32_t barriers;    // syncthreads() so far
  uint32_t wave_syncs;  // syncwave() so far
};
extern Running running;

// In every function that kernels call. The linker may merge an inline function of the standard library with the
// kernels' copy, which reports its accesses to the race check.
struct InRuntime {
  InRuntime() { running.in_kernel = false; }
  ~InRuntime() { running.in_kernel = true; }
};

// Gives up the launch: it throws an Error with this message.
[[noreturn]] void stop(const std::string &message);
[[noreturn]] void stop(const std::string &message, Site site);

// "thread 3 is in ballot at file:line".
std::string describe_running();

// What one lane brings to a wave operation and where the result goes.
struct Posted {
  const void *in;
  void *out;
  int argument;
};
struct WaveOperation {
  const char *name;
  size_t bytes;  // of the operand
  // Computes the results of all lanes. Runs on the lane that arrives last.
  void (*finish)(const WaveOperation &, const Posted *lanes, int wave_size);
};
// Waits until all lanes of the wave are at the same operation at the same place.
void meet_wave(const WaveOperation &, const Posted &, Site);

}  // namespace emu
