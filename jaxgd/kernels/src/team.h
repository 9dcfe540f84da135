// Threads that teach one network together.
//
// Each has neurons of the first hidden layer of its own: it alone reads and changes their weights, and so these stay in
// its caches. The layers after it, small beside it where inputs are many, every thread computes for itself, the same to
// the bit. All that they pass each other are the activations of the first layer, once a block of examples.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

#include "vectors.h"

namespace jaxgd::JAXGD_MACHINE {
namespace {

class Team {
 public:
  // The first layer's activations of `block` examples are (block, p).
  Team(int size, int64_t block, int64_t p) : size_(size) {
    for (Floats& a : activations_) a = zeros(block * p);
  }

  int size() const { return size_; }
  // Where the activations of a round go. In turns: some may still read one while others write the next.
  float* activations(int64_t round) const { return activations_[round % 2].get(); }

  // To be called when one's part of the round's activations is there.
  void arrive() {
    if (size_ > 1) arrived_.fetch_add(1, std::memory_order_acq_rel);
  }

  // Returns when all have arrived in this round; rounds count from 1. The others come soon, unless the system has taken
  // one's processor away, which it does for milliseconds: the seconds that are lost so are the result.
  double wait(int64_t round) const {
    if (size_ == 1) return 0;
    const auto here = [&] { return arrived_.load(std::memory_order_acquire) >= round * size_; };
    for (int spins = 0; spins < kSpins; ++spins) {
      if (here()) return 0;
      pause();
    }
    const auto since = std::chrono::steady_clock::now();
    while (!here()) std::this_thread::yield();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
    return seconds < kTaken ? 0 : seconds;
  }

 private:
  static constexpr int kSpins = 1000;
  static constexpr double kTaken = 5e-4;

  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
  }

  const int size_;
  Floats activations_[2];
  alignas(64) std::atomic<int64_t> arrived_{0};
};

}  // namespace
}  // namespace jaxgd::JAXGD_MACHINE
