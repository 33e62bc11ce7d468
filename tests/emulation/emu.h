// The emulation of a GPU on the CPU, below the device language (device.h).
//
// The threads of a workgroup are fibers of one OS thread and run until they meet in a barrier or wave operation;
// workgroups run one after another. Whatever the language forbids ends the launch with an emu::Error that says which
// threads stand where. The environment chooses the order in which threads and workgroups run:
//   ROCFORGE_EMU_ORDER   random (default), forward or reverse
//   ROCFORGE_EMU_SEED    of the random order; else a new one for each process, printed at the first launch
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the running thread

namespace emu {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Order { forward, reverse, random };
struct Settings {
  Order order;
  uint32_t seed;
};
Settings &settings();

struct Site {
  const char *file;
  int line;
};

// One array in LDS: where it lies in the workgroup of that serial number.
struct LdsArray {
  const char *name;
  size_t bytes;
  uint64_t workgroup;
  void *address;
};
void *lds_array(LdsArray &);
void *dynamic_lds();

struct Shape {
  const char *kernel;
  dim3 grid;
  unsigned threads;
  size_t dynamic_lds;
  int wave_size;
  size_t lds_limit;
};
void launch(const Shape &, void (*thread)(const void *), const void *context);

void syncthreads(Site);
void syncwave(Site);
uint64_t ballot(bool predicate, Site);
enum class Move { index, exclusive_or, up, down, broadcast };
void move(Move, const void *in, void *out, size_t bytes, int argument, Site);
void require_aligned(const void *, size_t alignment, Site);

// d = a b + c of the whole wave, k deep. The emulation has its own idea of which lane holds what (matrix.cpp), so that
// a mistake in csrc/hip/mma.h shows.
enum class MatrixUnit { mfma_16x16, mfma_32x32, wmma_gfx11, wmma_gfx12, mma_sync };
enum class Element { f16, bf16, i8 };
struct MatrixOperands {
  const void *a, *b, *c;
};
void multiply(MatrixUnit, Element, int k, const MatrixOperands &, void *d, Site);

}  // namespace emu
