// The threads of a call. They train one network together, train several networks, or share an evaluation.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include "descent.h"

namespace jaxgd {

// The number of processors that this process may use.
inline int threads() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// Runs `work` on up to `count` threads at once. Rethrows an exception that a thread throws.
inline void on_threads(int64_t count, const std::function<void()>& work) {
  std::exception_ptr failure;
  std::mutex lock;
  const auto work_or_catch = [&] {
    try {
      work();
    } catch (...) {
      const std::scoped_lock held(lock);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  try {
    for (int64_t i = 1; i < std::min<int64_t>(count, threads()); ++i) others.emplace_back(work_or_catch);
    // NOLINTNEXTLINE(bugprone-empty-catch)
  } catch (...) {
    // The system refused another thread; the threads already started do all the work.
  }
  work_or_catch();
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
}

// Runs f(0) … f(count − 1), several calls at a time. Rethrows an exception that a call throws.
inline void in_parallel(int64_t count, const std::function<void(int64_t)>& f) {
  std::atomic<int64_t> next{0};
  on_threads(count, [&] {
    try {
      for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) f(i);
    } catch (...) {
      next = count;
      throw;
    }
  });
}

// Decides how many threads train one network. If other work uses the processors, threads that wait for one another lose
// more time than they gain. After a contended epoch, the next `backoff_epochs_` epochs train each network with one
// thread, and later backoffs are twice as long. An epoch of several threads without contention halves the length of
// later backoffs. The length stays between kMinBackoff and kMaxBackoff.
class TeamSize {
 public:
  // Returns the number of threads for each network in an epoch, at most `most`.
  int next(const std::vector<int64_t>& sizes, int64_t batch_size, int most) {
    if (sizes.size() < 3) return 1;
    if (backoff_epochs_.load() > 0) {
      --backoff_epochs_;
      return 1;
    }
    const int64_t able = std::min({int64_t{most}, largest(sizes), kMost});
    const int64_t worth = batch_size * sizes[0] * padded(sizes[1]) / kMinMultiplyAdds;
    return static_cast<int>(std::clamp<int64_t>(worth, 1, able));
  }

  // Records whether the threads of an epoch were contended.
  void update(bool contended) {
    const int next = next_backoff_;
    if (contended) backoff_epochs_ = next;
    next_backoff_ = std::clamp(contended ? 2 * next : next / 2, kMinBackoff, kMaxBackoff);
  }

  // The most threads that can share a network: one for each group of kPad neurons of the first hidden layer, or 1
  // without a hidden layer.
  static int64_t largest(const std::vector<int64_t>& sizes) { return sizes.size() < 3 ? 1 : padded(sizes[1]) / kPad; }

 private:
  // The threads of a team wait for one another in each mini-batch, so each thread needs enough work: at least
  // kMinMultiplyAdds in the first layer of a mini-batch. Measured with 784 inputs and 32 neurons: a second thread
  // gained time from 4 examples per mini-batch on.
  static constexpr int64_t kMinMultiplyAdds = 50'000;
  // The most threads that `next` returns.
  static constexpr int64_t kMost = 4;
  static constexpr int kMinBackoff = 4, kMaxBackoff = 64;

  std::atomic<int> backoff_epochs_{0}, next_backoff_{kMinBackoff};
};

}  // namespace jaxgd
