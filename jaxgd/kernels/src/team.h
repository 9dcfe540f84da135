// Threads that teach one network together.
//
// Each has neurons of the first hidden layer of its own: it alone reads and changes their weights, and so these stay in
// its caches. The layers after it, small beside it where inputs are many, every thread computes for itself, the same to
// the bit. All that they pass each other are the activations of the first layer, once a block of examples.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include "vectors.h"

namespace jaxgd::JAXGD_MACHINE {
namespace {

class Team {
 public:
  // The first layer's activations of `block` examples are (block, p).
  Team(int size, int64_t block, int64_t p) : size_(size), places_(size) {
    for (Floats& a : activations_) a = zeros(block * p);
    for (std::atomic<int>& place : places_) place = kNowhere;
  }

  int size() const { return size_; }
  // Where the activations of a round go. In turns: some may still read one while others write the next.
  float* activations(int64_t round) const { return activations_[round % 2].get(); }

  // To be called when the rank-th one's part of the round's activations is there.
  void arrive(int rank) {
    if (size_ == 1) return;
    const int place = processor();
    if (places_[rank].load(std::memory_order_relaxed) != place) places_[rank].store(place, std::memory_order_relaxed);
    arrived_.fetch_add(1, std::memory_order_acq_rel);
  }

  // Returns when all have arrived in this round; rounds count from 1. The others come soon, unless the system has taken
  // one's processor away, which it does for milliseconds: the seconds that are lost so are the result.
  double wait(int64_t round, int rank) const {
    if (size_ == 1) return 0;
    const auto here = [&] { return arrived_.load(std::memory_order_acquire) >= round * size_; };
    for (int spins = 0; spins < kSpins; ++spins) {
      if (here()) return 0;
      pause();
    }
    const auto since = std::chrono::steady_clock::now();
    step_aside(rank);
    while (!here()) std::this_thread::yield();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
    return seconds < kTaken ? 0 : seconds;
  }

 private:
  static constexpr int kSpins = 1000;
  static constexpr double kTaken = 5e-4;
  static constexpr int kNowhere = -1;

  // The processor that this thread is on.
  static int processor() {
#ifdef __linux__
    return sched_getcpu();
#else
    return kNowhere;
#endif
  }

  // Moves to another processor if one of the others was last on this one. The system starts a thread where its parent
  // is, and may leave two there in turns for tens of milliseconds beside an idle processor, for both are never asleep.
  void step_aside(int rank) const {
#ifdef __linux__
    // The first one's thread is the caller's.
    if (rank == 0) return;
    const int here = processor();
    bool shared = false;
    for (int i = 0; i < size_; ++i) shared |= i != rank && places_[i].load(std::memory_order_relaxed) == here;
    cpu_set_t allowed;
    if (!shared || sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
    cpu_set_t elsewhere = allowed;
    CPU_CLR(here, &elsewhere);
    // It is moved at once, and free again to be anywhere.
    if (sched_setaffinity(0, sizeof(elsewhere), &elsewhere) == 0) sched_setaffinity(0, sizeof(allowed), &allowed);
#else
    static_cast<void>(rank);
#endif
  }

  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
  }

  const int size_;
  // Where each was when it last arrived.
  std::vector<std::atomic<int>> places_;
  Floats activations_[2];
  alignas(64) std::atomic<int64_t> arrived_{0};
};

}  // namespace
}  // namespace jaxgd::JAXGD_MACHINE
