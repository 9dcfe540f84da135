// An epoch of mini-batches, and the cost of many examples with its gradient. Compiled once for each kind of machine:
// JAXGD_LANES is how many floats a vector holds, JAXGD_MACHINE the namespace.
#include <algorithm>
#include <memory>

#include "descent.h"
#include "machine.h"

namespace jaxgd::JAXGD_MACHINE {
namespace {

// Examples that go through the network together. Of bytes fewer, where nothing is updated in between: the fewer they
// are, the more of the inputs are zero in all of them.
constexpr int64_t kBlock = 64;
constexpr int64_t kBytesBlock = 12;

bool epoch(const std::vector<int64_t>& sizes, const Examples& examples, const int32_t* order, int64_t batch_size,
           float eta, const Layers& before, const MutableLayers& after) {
  // A mini-batch goes through in blocks of one size, but for the last.
  const int64_t n = examples.n, blocks = (batch_size + kBlock - 1) / kBlock, block = (batch_size + blocks - 1) / blocks;
  Machine machine(sizes, examples, block);
  machine.read(before);
  // A mini-batch that is longer than a block is summed up first.
  std::unique_ptr<Sums> sums(batch_size > block ? new Sums(sizes) : nullptr);
  bool finite = true;
  for (int64_t start = 0; start < n; start += batch_size) {
    const int64_t m = std::min(batch_size, n - start);
    const float rate = eta / static_cast<float>(m);
    if (sums) sums->clear();
    for (int64_t at = start; at < start + m; at += block) {
      const int64_t many = std::min(block, start + m - at);
      const auto which = [&](int64_t e) { return static_cast<int64_t>(order[at + e]); };
      machine.feed_forward(many, which, std::min(many, n - at - many));
      finite &= !machine.any_nan(many);
      machine.feed_back(many, which, rate);
      if (sums) {
        machine.add_to(*sums, many);
      } else {
        machine.step(many);
      }
    }
    if (sums) machine.descend(*sums);
  }
  machine.write(after);
  return finite;
}

double evaluate(const std::vector<int64_t>& sizes, const Examples& examples, int64_t first, int64_t last,
                const Layers& network, float* outputs, Gradient* gradient) {
  const size_t depth = sizes.size() - 1;
  const int64_t block = examples.bytes != nullptr ? kBytesBlock : kBlock;
  Machine machine(sizes, examples, block);
  machine.read(network);
  std::unique_ptr<Sums> sums(gradient != nullptr ? new Sums(sizes) : nullptr);
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
  int64_t flushed = first;
  for (int64_t at = first; at < last; at += block) {
    const int64_t m = std::min(block, last - at);
    const auto which = [&](int64_t e) { return at + e; };
    machine.feed_forward(m, which, std::min(block, last - at - m));
    if (outputs != nullptr) {
      for (int64_t e = 0; e < m; ++e) {
        std::memcpy(outputs + (at + e) * sizes[depth], machine.outputs(e), sizes[depth] * 4);
      }
    }
    cost += machine.feed_back(m, which, -1.0f);
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
