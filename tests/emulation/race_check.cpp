// Finds two accesses to one byte that the GPU does not order: at least one writes, not both are atomic, and they belong
//   - to different workgroups, unless take_ticket orders these, or
//   - to different threads of one workgroup with no syncthreads between them, nor, in one wave, a syncwave.
// Also LDS that is read before it was written, or outside of its array.
//
// A write races with some earlier reader exactly if it races with one of the four readers that a Shadow keeps: the
// older ones are ordered before these. Of atomics only the last is kept: one that a later atomic of the same thread
// hides from a plain access of that thread is missed.
#include "race_check.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "fiber.h"
#include "lds.h"
#include "shadow_memory.h"
#include "workgroup.h"

extern "C" const char __ehdr_start __attribute__((visibility("hidden")));  // begin of this library

namespace emu {
namespace {

// A thread between two points that order memory.
struct Epoch {
  uint32_t workgroup;
  uint16_t thread, wave;
  uint32_t barriers, wave_syncs;

  bool is_running() const {
    return workgroup == running.workgroup && thread == running.thread && barriers == running.barriers &&
           wave_syncs == running.wave_syncs;
  }
};

struct Ticket {
  uint32_t workgroup;
  uint16_t thread;
  uint32_t barriers;  // of the workgroup when it took the ticket
};

struct RaceCheck {
  uint64_t launch = 0;
  ShadowMemory memory;
  std::vector<Epoch> epochs;
  std::vector<uint32_t> last_epoch;                               // of each thread
  std::unordered_map<const void *, std::vector<Ticket>> tickets;  // by counter
  const std::vector<Ticket> *earlier = nullptr;                   // of the counter whose ticket this workgroup took
  Ticket own{};

  void begin_launch() {
    launch = running.launch;
    memory.recycle();
    epochs.assign(1, {});
    last_epoch.assign(1024, 0);
    tickets.clear();
    earlier = nullptr;
  }
};
RaceCheck &check() {
  static RaceCheck check;
  if (check.launch != running.launch) check.begin_launch();
  return check;
}

uint32_t running_epoch() {
  uint32_t &epoch = check().last_epoch[running.thread];
  auto &epochs = check().epochs;
  if (epoch == 0 || !epochs[epoch].is_running()) {
    epoch = static_cast<uint32_t>(epochs.size());
    epochs.push_back({running.workgroup, running.thread, running.wave, running.barriers, running.wave_syncs});
  }
  return epoch;
}

// Whether what `past` did is visible to the running thread of another workgroup: written before a syncthreads before a
// ticket, read behind a ticket and a syncthreads.
bool is_ordered_by_tickets(const Epoch &past) {
  const RaceCheck &c = check();
  if (!c.earlier || c.own.workgroup != running.workgroup) return false;
  if (running.thread != c.own.thread && running.barriers == c.own.barriers) return false;
  for (const Ticket &ticket : *c.earlier) {
    if (ticket.workgroup == past.workgroup) return past.barriers < ticket.barriers;
  }
  return false;
}

bool is_ordered(Trace trace, bool lds) {
  if (trace.epoch == 0) return true;
  const Epoch &past = check().epochs[trace.epoch];
  if (past.workgroup != running.workgroup) return lds || is_ordered_by_tickets(past);
  if (past.thread == running.thread || past.barriers != running.barriers) return true;
  return past.wave == running.wave && past.wave_syncs != running.wave_syncs;
}

// File and line, behind it those of the functions it was inlined into.
std::string source_line(uint32_t code) {
  Dl_info library;
  if (!dladdr(&__ehdr_start, &library)) return "?";
  char command[512], line[256];
  // One byte back: into the instruction that made the access, which is a call.
  std::snprintf(command, sizeof command, "addr2line -i -s -e '%s' 0x%x", library.dli_fname, code - 1);
  std::string lines;
  if (FILE *const pipe = popen(command, "r")) {
    while (std::fgets(line, sizeof line, pipe))
      lines += (lines.empty() ? "" : " < ") + std::string(line, strcspn(line, "\n"));
    pclose(pipe);
  }
  return lines.empty() ? "?" : lines;
}

std::string describe(const char *what, const Epoch &epoch, uint32_t code) {
  return std::string(what) + " by thread " + std::to_string(epoch.thread) + " of workgroup " +
         std::to_string(epoch.workgroup) + " at " + source_line(code);
}

const char *name(Access access) {
  return access == Access::read ? "read" : access == Access::write ? "write" : "atomic operation";
}

void require_ordered(Trace past, Access past_access, Trace now, Access access, bool lds) {
  if (is_ordered(past, lds)) return;
  const auto &epochs = check().epochs;
  stop(std::string("race in ") + (lds ? "LDS: " : "global memory: ") +
       describe(name(access), epochs[now.epoch], now.code) + ", " +
       describe(name(past_access), epochs[past.epoch], past.code));
}

void remember_reader(Shadow &shadow, Trace now) {
  if (shadow.reader.epoch != 0) {
    const Epoch &last = check().epochs[shadow.reader.epoch];
    if (last.workgroup != running.workgroup) {
      shadow.other_workgroup = shadow.reader;
      shadow.other_wave = shadow.other_lane = {};
    } else if (last.wave != running.wave) {
      shadow.other_wave = shadow.reader;
      shadow.other_lane = {};
    } else if (last.thread != running.thread) {
      shadow.other_lane = shadow.reader;
    }
  }
  shadow.reader = now;
}

void check_byte(Shadow &shadow, Access access, Trace now, bool lds) {
  require_ordered(shadow.write, Access::write, now, access, lds);
  if (access != Access::atomic) require_ordered(shadow.atomic, Access::atomic, now, access, lds);
  if (access == Access::read) return remember_reader(shadow, now);
  for (const Trace &reader : {shadow.reader, shadow.other_lane, shadow.other_wave, shadow.other_workgroup}) {
    require_ordered(reader, Access::read, now, access, lds);
  }
  if (access == Access::atomic) {
    shadow.atomic = now;
  } else {
    shadow = {shadow.launch, now, {}, {}, {}, {}, {}};  // whatever comes is compared with this write
  }
}

void check_lds(const Shadow &shadow, Access access, Trace now) {
  if (access == Access::write) return;
  const bool written = (shadow.write.epoch && check().epochs[shadow.write.epoch].workgroup == running.workgroup) ||
                       (shadow.atomic.epoch && check().epochs[shadow.atomic.epoch].workgroup == running.workgroup);
  if (written) return;
  stop("LDS was not written before this " + describe(name(access), check().epochs[now.epoch], now.code));
}

}  // namespace

void check_access(const void *address, size_t bytes, Access access, const void *code) {
  if (!running.in_kernel || is_fiber_stack(address)) return;
  const InRuntime scope;
  const auto begin = reinterpret_cast<uintptr_t>(address);
  const Trace now{running_epoch(), static_cast<uint32_t>(static_cast<const char *>(code) - &__ehdr_start)};
  const bool lds = is_lds(address);
  if (lds && !is_inside_lds_array(address, bytes)) {
    stop("outside of the LDS array: " + describe(name(access), check().epochs[now.epoch], now.code));
  }
  for (uintptr_t p = begin; p < begin + bytes; ++p) {
    Shadow &shadow = check().memory.at(p, static_cast<uint32_t>(running.launch));
    if (lds) check_lds(shadow, access, now);
    check_byte(shadow, access, now, lds);
  }
}

void check_ticket(const void *address, size_t bytes, const void *code) {
  check_access(address, bytes, Access::atomic, code);
  if (!running.in_kernel) return;
  const InRuntime scope;
  RaceCheck &c = check();
  std::vector<Ticket> &taken = c.tickets[address];
  c.own = {running.workgroup, running.thread, running.barriers};
  c.earlier = &taken;
  taken.push_back(c.own);
}

}  // namespace emu
