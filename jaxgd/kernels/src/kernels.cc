// An epoch of mini-batches, and the cost of many examples with its gradient. Compiled once for each kind of machine:
// JAXGD_LANES is how many floats a vector holds, JAXGD_MACHINE the namespace.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "descent.h"
#include "machine.h"

namespace jaxgd::JAXGD_MACHINE {
namespace {

// Examples that go through the network together. Of bytes fewer, where nothing is updated in between: the fewer they
// are, the more of the inputs are zero in all of them.
constexpr int64_t kBlock = 64;
constexpr int64_t kBytesBlock = 12;

// f(0) … f(count − 1), all at once, for they wait for each other. False, with nothing done, if threads are not to be had.
template <typename F>
bool together(int count, const F& f) {
  enum { kWait, kGo, kGiveUp };
  std::atomic<int> word{kWait};
  std::vector<std::thread> others;
  try {
    others.reserve(count - 1);
    for (int i = 1; i < count; ++i) {
      others.emplace_back([&, i] {
        while (word.load(std::memory_order_acquire) == kWait) std::this_thread::yield();
        if (word == kGo) f(i);
      });
    }
    word = kGo;
  } catch (const std::exception&) {
    word = kGiveUp;
  }
  if (word == kGo) f(0);
  for (std::thread& other : others) other.join();
  return word == kGo;
}

Learned epoch(const std::vector<int64_t>& sizes, const Examples& examples, const int32_t* order, int64_t batch_size,
              float eta, const Layers& before, const MutableLayers& after, int threads) {
  const auto began = std::chrono::steady_clock::now();
  // A mini-batch goes through in blocks of one size, but for the last; if there are several, they are summed up first.
  const int64_t n = examples.n, blocks = (batch_size + kBlock - 1) / kBlock, block = (batch_size + blocks - 1) / blocks;
  Team team(threads, block, padded(sizes[1]));
  std::vector<std::unique_ptr<Machine>> machines;
  std::vector<Sums> sums;
  for (int rank = 0; rank < threads; ++rank) {
    machines.emplace_back(new Machine(sizes, examples, block, team, rank));
    machines.back()->read(before);
    if (blocks > 1) sums.push_back(machines.back()->sums());
  }
  bool finite = true;
  const auto learn = [&](int rank) {
    Machine& machine = *machines[rank];
    const auto which = [&](int64_t i) { return static_cast<int64_t>(order[i]); };
    const auto block_at = [&](int64_t at) {
      const int64_t end = std::min(n, (at / batch_size + 1) * batch_size);
      return Block{at, std::min(block, end - at)};
    };
    bool all_finite = true;
    Block now = block_at(0);
    machine.begin(now, which);
    while (now.m > 0) {
      const int64_t start = now.at / batch_size * batch_size, m = std::min(batch_size, n - start);
      const Block next = block_at(now.at + now.m);
      machine.feed_forward(now, which, next, std::min(now.m, n - next.at - next.m));
      all_finite &= !machine.any_nan(now.m);
      machine.feed_back(now, which, eta / static_cast<float>(m));
      if (blocks == 1) {
        machine.step(now.m);
      } else {
        if (now.at == start) sums[rank].clear();
        machine.add_to(sums[rank], now.m);
        if (next.at == start + m) machine.descend(sums[rank]);
      }
      now = next;
    }
    machine.write(after);
    // All see the same outputs.
    if (rank == 0) finite = all_finite;
  };
  if (!together(threads, learn)) return epoch(sizes, examples, order, batch_size, eta, before, after, 1);
  double lost = 0;
  for (const auto& machine : machines) lost = std::max(lost, machine->lost());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return {finite, lost > seconds / 8};
}

double evaluate(const std::vector<int64_t>& sizes, const Examples& examples, int64_t first, int64_t last,
                const Layers& network, float* outputs, Gradient* gradient) {
  const size_t depth = sizes.size() - 1;
  const int64_t block = examples.bytes != nullptr ? kBytesBlock : kBlock;
  Team alone(1, block, padded(sizes[1]));
  Machine machine(sizes, examples, block, alone, 0);
  machine.read(network);
  std::optional<Sums> sums;
  if (gradient != nullptr) sums = machine.sums();
  double cost = 0;
  // Into float64 after so many examples: often enough for accuracy, seldom enough to cost nothing.
  constexpr int64_t kExamples = 512;
  const auto flush = [&] {
    const auto add = [](std::vector<double>& to, const float* from) {
      for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
    };
    for (size_t l = 1; l <= depth; ++l) {
      add(gradient->w[l], sums->w[l].get());
      add(gradient->b[l], sums->b[l].get());
    }
    sums->clear();
  };
  const auto which = [](int64_t i) { return i; };
  const auto block_at = [&](int64_t at) { return Block{at, std::min(block, last - at)}; };
  machine.begin(block_at(first), which);
  int64_t flushed = first;
  for (int64_t at = first; at < last; at += block) {
    const Block now = block_at(at), next = block_at(at + now.m);
    const int64_t m = now.m;
    machine.feed_forward(now, which, next, std::min(block, last - next.at - next.m));
    if (outputs != nullptr) {
      for (int64_t e = 0; e < m; ++e) {
        std::memcpy(outputs + (at + e) * sizes[depth], machine.outputs(e), sizes[depth] * 4);
      }
    }
    cost += machine.feed_back(now, which, -1.0f);
    if (!sums) continue;
    machine.add_to(*sums, m);
    if (at + m - flushed >= kExamples) flush(), flushed = at + m;
  }
  if (sums) flush();
  return cost;
}

}  // namespace

#define JAXGD_TEXT(x) #x
#define JAXGD_NAME(x) JAXGD_TEXT(x)
extern const Kernels kKernels = {JAXGD_NAME(JAXGD_MACHINE), epoch, evaluate, kPanel};

}  // namespace jaxgd::JAXGD_MACHINE
