// An epoch of mini-batches, and the cost of many examples with its gradient. Compiled once for each kind of machine:
// JAXGD_LANES is how many floats a vector holds, JAXGD_MACHINE the namespace.
#include <algorithm>
#include <memory>

#include "descent.h"
#include "machine.h"
#include "rows.h"
#include "vectors.h"

namespace jaxgd::JAXGD_MACHINE {
namespace {

// Up to so many examples each one's step is taken by itself; with more, roundings would add up.
constexpr int64_t kAlone = 32;
// Of so many examples a gradient is summed up in float32, then in float64.
constexpr int64_t kBlock = 64;

struct Sums {
  std::vector<Floats> w, b;
  explicit Sums(const std::vector<int64_t>& sizes) : w(sizes.size()), b(sizes.size()), sizes_(sizes) {
    for (size_t l = 1; l < sizes.size(); ++l) {
      w[l] = zeros(sizes[l - 1] * padded(sizes[l]));
      b[l] = zeros(padded(sizes[l]));
    }
  }
  void clear() {
    for (size_t l = 1; l < sizes_.size(); ++l) {
      std::memset(w[l].get(), 0, sizes_[l - 1] * padded(sizes_[l]) * 4);
      std::memset(b[l].get(), 0, padded(sizes_[l]) * 4);
    }
  }

 private:
  const std::vector<int64_t>& sizes_;
};

bool epoch(const std::vector<int64_t>& sizes, const Examples& examples, const int32_t* order, int64_t batch_size,
           float eta, const Layers& before, const MutableLayers& after) {
  const int64_t n = examples.n, block = std::min(batch_size, kBlock);
  Machine machine(sizes, block);
  machine.read(before);
  std::unique_ptr<Sums> sums(batch_size > kAlone ? new Sums(sizes) : nullptr);
  bool finite = true;
  with_rows(examples, sizes[0], [&](const auto& rows) {
    for (int64_t start = 0; start < n; start += batch_size) {
      const int64_t m = std::min(batch_size, n - start);
      if (sums) sums->clear();
      for (int64_t at = start; at < start + m; at += block) {
        const int64_t many = std::min(block, start + m - at);
        for (int64_t e = at + block; e < std::min(at + 2 * block, n); ++e) rows.prefetch(order[e]);
        const auto which = [&](int64_t e) { return static_cast<int64_t>(order[at + e]); };
        machine.feed_forward(rows, many, which);
        finite &= !machine.any_nan(many);
        machine.feed_back(examples, many, which);
        if (sums) {
          machine.add_gradient(rows, many, which, sums->w, sums->b);
        } else {
          machine.step(rows, many, which, eta / static_cast<float>(m));
        }
      }
      if (sums) machine.descend(sums->w, sums->b, eta / static_cast<float>(m));
    }
  });
  machine.write(after);
  return finite;
}

double evaluate(const std::vector<int64_t>& sizes, const Examples& examples, int64_t first, int64_t last,
                const Layers& network, float* outputs, Gradient* gradient) {
  const size_t depth = sizes.size() - 1;
  Machine machine(sizes, kBlock);
  machine.read(network);
  std::unique_ptr<Sums> sums(gradient != nullptr ? new Sums(sizes) : nullptr);
  double cost = 0;
  // Into float64 after so many blocks: often enough for accuracy, seldom enough to cost nothing.
  constexpr int64_t kBlocks = 8;
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
  with_rows(examples, sizes[0], [&](const auto& rows) {
    int64_t blocks = 0;
    for (int64_t at = first; at < last; at += kBlock) {
      const int64_t m = std::min(kBlock, last - at);
      const auto which = [&](int64_t e) { return at + e; };
      machine.feed_forward(rows, m, which);
      if (outputs != nullptr) {
        for (int64_t e = 0; e < m; ++e) {
          std::memcpy(outputs + (at + e) * sizes[depth], machine.outputs(e), sizes[depth] * 4);
        }
      }
      cost += machine.feed_back(examples, m, which);
      if (!sums) continue;
      machine.add_gradient(rows, m, which, sums->w, sums->b);
      if (++blocks % kBlocks == 0) flush();
    }
  });
  if (sums) flush();
  return cost;
}

uint16_t largest(const uint16_t* columns, int64_t count) {
  uint16_t most = 0;
  for (int64_t k = 0; k < count; ++k) most = std::max(most, columns[k]);
  return most;
}

}  // namespace

#define JAXGD_TEXT(x) #x
#define JAXGD_NAME(x) JAXGD_TEXT(x)
extern const Kernels kKernels = {JAXGD_NAME(JAXGD_MACHINE), epoch, evaluate, largest};

}  // namespace jaxgd::JAXGD_MACHINE
