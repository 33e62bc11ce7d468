#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

#include "emu.h"

namespace emu {
namespace {

uint32_t parse_seed(const std::string &text) {
  uint32_t seed;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seed);
  if (error == std::errc() && end == text.data() + text.size()) return seed;
  throw Error("ROCFORGE_EMU_SEED is a number below 2^32, not " + text);
}

Settings from_environment() {
  const char *const order = std::getenv("ROCFORGE_EMU_ORDER");
  const char *const seed = std::getenv("ROCFORGE_EMU_SEED");
  Settings settings{Order::random, seed ? parse_seed(seed) : std::random_device()()};
  const std::string name = order ? order : "random";
  if (name == "forward") {
    settings.order = Order::forward;
  } else if (name == "reverse") {
    settings.order = Order::reverse;
  } else if (name != "random") {
    throw Error("ROCFORGE_EMU_ORDER is random, forward or reverse, not " + name);
  }
  if (settings.order == Order::random) std::fprintf(stderr, "emulation: ROCFORGE_EMU_SEED=%u\n", settings.seed);
  return settings;
}

}  // namespace

Settings &settings() {
  static Settings settings = from_environment();
  return settings;
}

}  // namespace emu
