#include "workgroup.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <random>
#include <vector>

#include "fiber.h"
#include "lds.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emu {

Running running;

namespace {

enum class State { ready, in_wave_operation, at_barrier, exited };

struct Thread {
  Fiber fiber;
  State state;
  WaveOperation operation;
  Site site;
};

struct Wave {
  int arrived = 0;
  uint32_t syncs = 0;
};

// The launch under way.
struct Workgroup {
  Shape shape;
  void (*body)(const void *);
  const void *context;
  std::vector<Thread> threads;
  std::vector<Wave> waves;
  std::vector<Posted> posted;
  std::vector<int> order;  // in which ready threads run
  int position;            // in `order`, of the thread that runs
  int alive, at_barrier;
  uint32_t barriers;
  std::string error;
  std::minstd_rand random;
  Fiber launcher;
};
Workgroup group;

Thread &current() { return group.threads[running.thread]; }

bool same_place(Site a, Site b) { return a.line == b.line && (a.file == b.file || !strcmp(a.file, b.file)); }

std::string place(Site site) { return std::string(site.file) + ":" + std::to_string(site.line); }

std::string describe(int thread) {
  const Thread &t = group.threads[thread];
  const std::string name = "thread " + std::to_string(thread);
  switch (t.state) {
    case State::exited:
      return name + " has exited";
    case State::at_barrier:
      return name + " is in syncthreads at " + place(t.site);
    case State::in_wave_operation:
      return name + " is in " + t.operation.name + " at " + place(t.site);
    default:
      return name + " is running";
  }
}

// Makes the thread at `position` of the order the running one.
void make_running(int position) {
  group.position = position;
  const int to = group.order[position];
  const int wave = to / group.shape.wave_size;
  threadIdx.x = to;
  running.thread = to;
  running.wave = wave;
  running.barriers = group.barriers;
  running.wave_syncs = group.waves[wave].syncs;
}

// Continues the thread at `position`; returns when the calling thread is continued.
void resume(int position) {
  Thread &from = current();
  make_running(position);
  if (&from != &current()) switch_fiber(from.fiber, current().fiber, from.state == State::exited);
}

// Position of the next ready thread after the given one; -1: all wait.
int next_ready(int position) {
  const int count = static_cast<int>(group.order.size());
  if (settings().order == Order::random) position = group.random() % count;
  for (int i = 0; i < count; ++i) {
    if (++position == count) position = 0;
    if (group.threads[group.order[position]].state == State::ready) return position;
  }
  return -1;
}

// No thread can go on: names two that wait for each other.
[[noreturn]] void report_divergence() {
  const int count = static_cast<int>(group.threads.size()), wave_size = group.shape.wave_size;
  const auto is = [&](State state) { return [=](int i) { return group.threads[i].state == state; }; };
  const auto find = [](int begin, int end, auto predicate) {
    while (begin < end && !predicate(begin)) ++begin;
    return begin;
  };
  int waiting = find(0, count, is(State::in_wave_operation));
  if (waiting < count) {
    const int first = waiting / wave_size * wave_size;
    const int other = find(first, first + wave_size, [&](int i) {
      return !is(State::in_wave_operation)(i) || !same_place(group.threads[i].site, group.threads[waiting].site);
    });
    stop("divergent wave operation: " + describe(waiting) + ", in the same wave " + describe(other));
  }
  waiting = find(0, count, is(State::at_barrier));
  stop("divergent barrier: " + describe(waiting) + ", " + describe(find(0, count, is(State::exited))));
}

void wait_for_others() {
  const int next = next_ready(group.position);
  if (next < 0) report_divergence();
  resume(next);
}

void run_thread() {
  entered_fiber(group.launcher);
  running.in_kernel = true;
  group.body(group.context);
  running.in_kernel = false;
  current().state = State::exited;
  if (--group.alive == 0) switch_fiber(current().fiber, group.launcher, /*last=*/true);
  wait_for_others();
  __builtin_unreachable();
}

void check_shape(const Shape &shape) {
  const auto refuse = [&](const std::string &what) { throw Error(std::string(shape.kernel) + ": " + what); };
  const auto wave = std::to_string(shape.wave_size);
  if (shape.threads == 0 || shape.threads > 1024 || shape.threads % shape.wave_size) {
    refuse("workgroups of " + std::to_string(shape.threads) + " threads: 1 to 1024 in whole waves of " + wave +
           " are possible");
  }
  const dim3 grid = shape.grid;
  // HIP counts the threads of each dimension in 32 bits, CUDA the workgroups of y and z in 16.
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 ||
      uint64_t{grid.x} * shape.threads > UINT32_MAX) {
    refuse("a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " + std::to_string(grid.z) +
           " workgroups is not possible");
  }
  if (shape.dynamic_lds > shape.lds_limit) {
    refuse(std::to_string(shape.dynamic_lds) + " bytes of dynamic LDS, and this launch may use " +
           std::to_string(shape.lds_limit));
  }
}

// Puts 0 .. count - 1 into `numbers`, in the order of the settings.
void arrange(std::vector<uint32_t> &numbers, size_t count) {
  numbers.resize(count);
  for (size_t i = 0; i < count; ++i) numbers[i] = static_cast<uint32_t>(i);
  if (settings().order == Order::reverse) std::reverse(numbers.begin(), numbers.end());
  if (settings().order == Order::random) std::shuffle(numbers.begin(), numbers.end(), group.random);
}

// How to see an error again.
std::string order_of_run() {
  const Settings &s = settings();
  if (s.order == Order::random) return " (ROCFORGE_EMU_SEED=" + std::to_string(s.seed) + ")";
  return s.order == Order::forward ? " (ROCFORGE_EMU_ORDER=forward)" : " (ROCFORGE_EMU_ORDER=reverse)";
}

void run_workgroup(uint32_t index) {
  const dim3 grid = group.shape.grid;
  const int count = static_cast<int>(group.shape.threads), wave_size = group.shape.wave_size;
  blockIdx = {index % grid.x, index / grid.x % grid.y, index / grid.x / grid.y};
  running.workgroup = index;
  begin_lds(group.shape.dynamic_lds, group.shape.lds_limit);
  group.alive = count;
  group.at_barrier = 0;
  group.barriers = 0;
  group.waves.assign(count / wave_size, {});
  for (int i = 0; i < count; ++i) {
    prepare_fiber(group.threads[i].fiber, i, run_thread);
    group.threads[i].state = State::ready;
  }
  make_running(next_ready(count - 1));
  switch_fiber(group.launcher, current().fiber);  // until the last thread has exited
  if (const char *array = group.error.empty() ? overwritten_lds_guard() : nullptr) {
    group.error = std::string("write outside of the LDS array ") + array;
  }
}

}  // namespace

void stop(const std::string &message) {
  running.in_kernel = false;
  group.error = message;
  switch_fiber(current().fiber, group.launcher, /*last=*/true);
  __builtin_unreachable();
}
void stop(const std::string &message, Site site) { stop(message + " at " + place(site)); }

std::string describe_running() { return describe(running.thread); }

void syncthreads(Site site) {
  const InRuntime scope;
  current().state = State::at_barrier;
  current().site = site;
  if (++group.at_barrier < static_cast<int>(group.threads.size())) return wait_for_others();
  for (size_t i = 0; i < group.threads.size(); ++i) {
    if (same_place(group.threads[i].site, site)) continue;
    stop("divergent barrier: " + describe(static_cast<int>(i)) + ", " + describe_running());
  }
  for (Thread &thread : group.threads) thread.state = State::ready;
  group.at_barrier = 0;
  ++group.barriers;
  resume(next_ready(static_cast<int>(group.order.size()) - 1));
}

void meet_wave(const WaveOperation &operation, const Posted &posted, Site site) {
  const InRuntime scope;
  const int wave_size = group.shape.wave_size, first = running.wave * wave_size;
  Wave &wave = group.waves[running.wave];
  Thread &self = current();
  self.state = State::in_wave_operation;
  self.operation = operation;
  self.site = site;
  group.posted[running.thread] = posted;
  if (++wave.arrived < wave_size) return wait_for_others();
  for (int i = first; i < first + wave_size; ++i) {
    const Thread &other = group.threads[i];
    if (!same_place(other.site, site) || other.operation.finish != operation.finish ||
        other.operation.bytes != operation.bytes) {
      stop("divergent wave operation: " + describe(i) + ", in the same wave " + describe_running());
    }
  }
  wave.arrived = 0;
  operation.finish(operation, &group.posted[first], wave_size);
  for (int i = first; i < first + wave_size; ++i) group.threads[i].state = State::ready;
}

void syncwave(Site site) {
  static constexpr WaveOperation kSync{"syncwave", 0, [](const WaveOperation &, const Posted *, int) {
                                         running.wave_syncs = ++group.waves[running.wave].syncs;
                                       }};
  meet_wave(kSync, {}, site);
}

void launch(const Shape &shape, void (*body)(const void *), const void *context) {
  static std::mutex one_at_a_time;  // PyTorch's backward pass runs in its own thread
  const std::lock_guard lock(one_at_a_time);
  check_shape(shape);
  const size_t workgroups = size_t{shape.grid.x} * shape.grid.y * shape.grid.z;
  group.shape = shape;
  group.body = body;
  group.context = context;
  group.error.clear();
  group.random.seed(settings().seed);
  group.threads.resize(shape.threads);
  group.posted.resize(shape.threads);
  ++running.launch;
  gridDim = shape.grid;
  blockDim = dim3(shape.threads);
  threadIdx = dim3(0, 0, 0);

  std::vector<uint32_t> blocks, waves, lanes;
  arrange(blocks, workgroups);
  for (const uint32_t block : blocks) {
    arrange(waves, shape.threads / shape.wave_size);
    arrange(lanes, shape.wave_size);
    group.order.clear();
    for (const uint32_t wave : waves) {
      for (const uint32_t lane : lanes) group.order.push_back(static_cast<int>(wave * shape.wave_size + lane));
    }
    run_workgroup(block);
    if (group.error.empty()) continue;
    abandon_fibers();
    throw Error(std::string(shape.kernel) + ", workgroup " + std::to_string(block) + ": " + group.error +
                order_of_run());
  }
}

}  // namespace emu
