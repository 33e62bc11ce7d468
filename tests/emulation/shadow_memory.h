// What the race check remembers about every byte that kernels touch.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <unordered_map>
#include <vector>

namespace emu {

// A past access, in eight bytes: shadow memory holds six for every byte of the kernel's.
struct Trace {
  uint32_t epoch;  // index into the check's list of epochs; 0: there was no access
  uint32_t code;   // offset of the instruction in its library
};

struct Shadow {
  uint32_t launch;  // that the rest is about
  Trace write, atomic;
  Trace reader;           // the last one
  Trace other_lane;       // the last of another lane of its wave
  Trace other_wave;       // the last of another wave of its workgroup
  Trace other_workgroup;  // the last of another workgroup
};

class ShadowMemory {
 public:
  // Of the byte at `address`, empty if this launch has not touched it.
  Shadow &at(uintptr_t address, uint32_t launch) {
    if (address / kPage != last_page_) {
      last_page_ = address / kPage;
      last_ = find(last_page_);
    }
    Shadow &shadow = last_[address % kPage];
    if (shadow.launch != launch) {
      shadow = {};
      shadow.launch = launch;
    }
    return shadow;
  }

  // Between launches: the tensors of earlier ones are gone, and new ones lie elsewhere. Old contents need no clearing,
  // they name another launch.
  void recycle() {
    if (pages_.size() < kMaxPages) return;
    for (const auto &[page, shadow] : pages_) {
      if (spare_.size() < kMaxPages) {
        spare_.push_back(shadow);
      } else {
        munmap(shadow, kPage * sizeof(Shadow));
      }
    }
    pages_.clear();
    last_page_ = 0;
  }

 private:
  static constexpr uintptr_t kPage = 4096;
  static constexpr size_t kMaxPages = 2048;

  Shadow *find(uintptr_t page) {
    Shadow *&shadow = pages_[page];
    if (!shadow) shadow = take_page();
    return shadow;
  }

  Shadow *take_page() {
    if (!spare_.empty()) {
      Shadow *const shadow = spare_.back();
      spare_.pop_back();
      return shadow;
    }
    void *p = mmap(nullptr, kPage * sizeof(Shadow), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    return static_cast<Shadow *>(p);
  }

  std::unordered_map<uintptr_t, Shadow *> pages_;
  std::vector<Shadow *> spare_;
  uintptr_t last_page_ = 0;  // the first page of the address space is nobody's
  Shadow *last_ = nullptr;
};

}  // namespace emu
