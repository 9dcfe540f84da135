// Threads that train one network together.
//
// Each thread owns some neurons of the first hidden layer. Only this thread reads and changes the weights of these
// neurons, so the weights stay in its caches. Every thread computes all later layers, and all threads get the same
// bits. The later layers are small compared with the first if the network has many inputs. The threads exchange only
// the activations of the first layer, once per block of examples.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include "vectors.h"

namespace jaxgd::JAXGD_ISA {
namespace {

class Team {
 public:
  // A block has up to `block` examples. The first layer has p neurons, including the padding.
  Team(int size, int64_t block, int64_t p) : size_(size), processors_(size) {
    for (Floats& a : activations_) a = zeros(block * p);
    for (std::atomic<int>& processor : processors_) processor = kUnknown;
  }

  int size() const { return size_; }
  // The first layer's activations in a round. A round is the pass of one block. Rounds alternate between two buffers,
  // because some threads may still read one buffer while others write the activations of the next round.
  float* activations(int64_t round) const { return activations_[round % 2].get(); }

  // Reports that thread `rank` has written its part of the round's activations.
  void arrive(int rank) {
    if (size_ == 1) return;
    const int processor = current_processor();
    if (processors_[rank].load(std::memory_order_relaxed) != processor) {
      processors_[rank].store(processor, std::memory_order_relaxed);
    }
    arrived_.fetch_add(1, std::memory_order_acq_rel);
  }

  // Waits until all threads have arrived in this round; rounds count from 1. Returns 0 after a short wait, otherwise
  // the seconds. A long wait means that the system ran other work on the processor of a thread.
  double wait(int64_t round, int rank) const {
    if (size_ == 1) return 0;
    const auto all_arrived = [&] { return arrived_.load(std::memory_order_acquire) >= round * size_; };
    for (int spins = 0; spins < kSpins; ++spins) {
      if (all_arrived()) return 0;
      pause();
    }
    const auto since = std::chrono::steady_clock::now();
    migrate(rank);
    while (!all_arrived()) std::this_thread::yield();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
    return seconds < kMinLost ? 0 : seconds;
  }

 private:
  static constexpr int kSpins = 1000;
  // In seconds. A shorter wait returns 0: other work usually holds a processor for milliseconds.
  static constexpr double kMinLost = 5e-4;
  static constexpr int kUnknown = -1;

  // The number of the processor that runs this thread; kUnknown on systems other than Linux.
  static int current_processor() {
#ifdef __linux__
    return sched_getcpu();
#else
    return kUnknown;
#endif
  }

  // Moves this thread to another processor if another thread of the team last arrived on the same processor. The system
  // may start two threads on one processor and leave them there for tens of milliseconds, although another is idle.
  void migrate(int rank) const {
#ifdef __linux__
    // Thread 0 belongs to the caller, so its processors must not change.
    if (rank == 0) return;
    const int current = current_processor();
    bool shared = false;
    for (int i = 0; i < size_; ++i) shared |= i != rank && processors_[i].load(std::memory_order_relaxed) == current;
    cpu_set_t allowed;
    if (!shared || sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
    cpu_set_t others = allowed;
    CPU_CLR(current, &others);
    // The first call moves the thread. The second call lets it use all its processors again.
    if (sched_setaffinity(0, sizeof(others), &others) == 0) sched_setaffinity(0, sizeof(allowed), &allowed);
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
  // The processor of each thread when it last arrived.
  std::vector<std::atomic<int>> processors_;
  Floats activations_[2];
  alignas(64) std::atomic<int64_t> arrived_{0};
};

}  // namespace
}  // namespace jaxgd::JAXGD_ISA
