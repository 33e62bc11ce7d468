// Shuffles and votes.
#include <cstring>
#include <string>

#include "workgroup.h"

namespace emu {
namespace {

// The lane whose value lane `lane` gets.
int source_lane(Move move, int lane, int argument, int wave_size) {
  switch (move) {
    case Move::exclusive_or:
      return lane ^ argument;
    case Move::up:
      return lane < argument ? lane : lane - argument;
    case Move::down:
      return lane + argument < wave_size ? lane + argument : lane;
    default:
      return argument & (wave_size - 1);
  }
}

template <Move kind> void finish_move(const WaveOperation &operation, const Posted *lanes, int wave_size) {
  for (int lane = 0; lane < wave_size; ++lane) {
    const int argument = lanes[lane].argument;
    if (kind == Move::broadcast && argument != lanes[0].argument)
      stop("lanes name different sources: " + describe_running());
    if (kind != Move::index && (argument < 0 || argument >= wave_size)) {
      stop(std::to_string(argument) + " in a wave of " + std::to_string(wave_size) + " lanes: " + describe_running());
    }
    memcpy(lanes[lane].out, lanes[source_lane(kind, lane, argument, wave_size)].in, operation.bytes);
  }
}

void finish_ballot(const WaveOperation &, const Posted *lanes, int wave_size) {
  uint64_t mask = 0;
  for (int lane = 0; lane < wave_size; ++lane) mask |= uint64_t{lanes[lane].argument != 0} << lane;
  for (int lane = 0; lane < wave_size; ++lane) *static_cast<uint64_t *>(lanes[lane].out) = mask;
}

}  // namespace

void move(Move kind, const void *in, void *out, size_t bytes, int argument, Site site) {
  const WaveOperation operation =
      kind == Move::index          ? WaveOperation{"shuffle", bytes, finish_move<Move::index>}
      : kind == Move::exclusive_or ? WaveOperation{"shuffle_xor", bytes, finish_move<Move::exclusive_or>}
      : kind == Move::up           ? WaveOperation{"shuffle_up", bytes, finish_move<Move::up>}
      : kind == Move::down         ? WaveOperation{"shuffle_down", bytes, finish_move<Move::down>}
                                   : WaveOperation{"broadcast", bytes, finish_move<Move::broadcast>};
  meet_wave(operation, {in, out, argument}, site);
}

uint64_t ballot(bool predicate, Site site) {
  uint64_t mask;
  meet_wave({"ballot", 0, finish_ballot}, {nullptr, &mask, predicate}, site);
  return mask;
}

void require_aligned(const void *address, size_t alignment, Site site) {
  if (reinterpret_cast<uintptr_t>(address) % alignment == 0) return;
  const InRuntime scope;
  stop("vector access that is not aligned to " + std::to_string(alignment) + " bytes", site);
}

}  // namespace emu
