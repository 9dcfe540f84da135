// A network as the kernels keep it, and what it can do with a mini-batch: forward, back, and a step.
//
// Weights lie as products.h says, with a row for each input, (n_{l-1}, p_l): an input that is zero, as most pixels are,
// costs nothing. Past the first layer the transposed (n_l, p_{l-1}) are kept too, for the way back, and updated alike.
// A mini-batch's activations and deltas are (m, p_l). Where several teach one network, each has some of the first
// layer's columns only, of weights and deltas; team.h says why.
#pragma once

#include <cmath>
#include <vector>

#include "descent.h"
#include "products.h"
#include "rows.h"
#include "team.h"
#include "vectors.h"

namespace jaxgd::JAXGD_MACHINE {
namespace {

// Columns of a layer: from `from` on, `count` of them, and `real` of these are neurons.
struct Columns {
  int64_t from, count, real;
};

// Examples that go through together: m of them, from position `at` on.
struct Block {
  int64_t at, m;
};

// A sum of gradients, as a machine's weights and biases lie.
struct Sums {
  std::vector<Floats> w, b;
  std::vector<int64_t> size_w, size_b;

  void clear() {
    for (size_t l = 1; l < w.size(); ++l) {
      std::memset(w[l].get(), 0, size_w[l] * 4);
      std::memset(b[l].get(), 0, size_b[l] * 4);
    }
  }
};

// A network in the kernels' layout, with room for a mini-batch of up to `block` examples: the part of team's `rank`-th.
class Machine {
 public:
  Machine(const std::vector<int64_t>& sizes, const Examples& examples, int64_t block, Team& team, int rank)
      : sizes_(sizes), examples_(examples), depth_(sizes.size() - 1), team_(team), rank_(rank) {
    const int64_t parts = padded(sizes[1]) / kPad;
    const int64_t from = parts * rank / team.size() * kPad, to = parts * (rank + 1) / team.size() * kPad;
    first_ = {from, to - from, std::min(to, sizes[1]) - from};
    for (int i = 0; i < 2; ++i) {
      if (examples.bytes != nullptr) {
        gathered_.emplace_back(examples, sizes[0], block);
      } else {
        copied_.push_back(zeros(block * sizes[0]));
      }
    }
    const size_t count = depth_ + 1;
    forward_.resize(count), back_.resize(count), b_.resize(count), a_.resize(count), delta_.resize(count);
    for (size_t l = 1; l <= depth_; ++l) {
      const int64_t p = columns(l).count;
      forward_[l] = zeros(sizes[l - 1] * p);
      if (l > 1) back_[l] = zeros(sizes[l] * columns(l - 1).count);
      b_[l] = zeros(p);
      if (l > 1) a_[l] = zeros(block * p);
      delta_[l] = zeros(block * p);
    }
  }

  void read(const Layers& from) {
    for (size_t l = 1; l <= depth_; ++l) {
      const int64_t n = sizes_[l], inputs = sizes_[l - 1];
      const Columns mine = columns(l);
      for (int64_t o = 0; o < mine.real; ++o) {
        const float* row = from.w[l] + (mine.from + o) * inputs;
        for (int64_t i = 0; i < inputs; ++i) forward_[l][place(inputs, mine.count, kPanel, i, o)] = row[i];
      }
      std::memcpy(b_[l].get(), from.b[l] + mine.from, mine.real * 4);
      if (l == 1) continue;
      const Columns before = columns(l - 1);
      for (int64_t o = 0; o < n; ++o) {
        const float* row = from.w[l] + o * inputs + before.from;
        for (int64_t i = 0; i < before.real; ++i) back_[l][place(n, before.count, kPanel, o, i)] = row[i];
      }
    }
  }

  // Of what all of the team have alike, the first writes.
  void write(const MutableLayers& to) const {
    for (size_t l = 1; l <= (rank_ == 0 ? depth_ : 1); ++l) {
      const int64_t inputs = sizes_[l - 1];
      const Columns mine = columns(l);
      for (int64_t o = 0; o < mine.real; ++o) {
        float* row = to.w[l] + (mine.from + o) * inputs;
        for (int64_t i = 0; i < inputs; ++i) row[i] = forward_[l][place(inputs, mine.count, kPanel, i, o)];
      }
      std::memcpy(to.b[l] + mine.from, b_[l].get(), mine.real * 4);
    }
  }

  Sums sums() const {
    Sums all{{}, {}, std::vector<int64_t>(depth_ + 1), std::vector<int64_t>(depth_ + 1)};
    all.w.resize(depth_ + 1), all.b.resize(depth_ + 1);
    for (size_t l = 1; l <= depth_; ++l) {
      all.size_b[l] = columns(l).count, all.size_w[l] = sizes_[l - 1] * columns(l).count;
      all.w[l] = zeros(all.size_w[l]), all.b[l] = zeros(all.size_b[l]);
    }
    return all;
  }

  // Makes ready the inputs of a block, before the first is fed forward. Position i holds row which(i).
  template <typename Which>
  void begin(const Block& first, const Which& which) { gather(1, first, which, 0); }

  // The outputs of a block that was made ready. The next one is, meanwhile; of `after` more, the rows are called near.
  template <typename Which>
  void feed_forward(const Block& block, const Which& which, const Block& next, int64_t after) {
    const int64_t m = block.m;
    if (examples_.labels != nullptr) {
      for (int64_t e = 0; e < m; ++e) __builtin_prefetch(examples_.labels + which(block.at + e));
    }
    ++round_;
    for (size_t l = 1; l <= depth_; ++l) {
      const Columns mine = columns(l);
      float* a = activations(l) + mine.from;
      with_inputs(l, [&](const auto& in) {
        multiply(in, m, forward_[l].get(), sizes_[l - 1], mine.count, b_[l].get(), a, padded(sizes_[l]));
      });
      // a = σ(z), and 0 where there is no neuron.
      for (int64_t e = 0; e < m; ++e, a += padded(sizes_[l])) {
        for (int64_t i = 0; i < mine.count; i += kLanes) store(a + i, first(sigmoid(load(a + i)), mine.real - i));
      }
      if (l > 1) continue;
      team_.arrive(rank_);
      if (next.m > 0) gather(round_ + 1, next, which, after);
      lost_ += team_.wait(round_, rank_);
    }
  }

  // The deltas −rate · ∂(½‖y − a‖²)/∂z of each of a block's examples, for all layers. Returns the sum of ½‖y − a‖².
  template <typename Which>
  double feed_back(const Block& block, const Which& which, float rate) {
    const int64_t m = block.m;
    const double cost = errors(block, which, rate);
    for (size_t l = depth_; l > 1; --l) {
      const Columns mine = columns(l - 1);
      float* d = delta_[l - 1].get();
      multiply(deltas(l), m, back_[l].get(), sizes_[l], mine.count, nullptr, d, mine.count);
      const float* a = activations(l - 1) + mine.from;
      for (int64_t e = 0; e < m; ++e, a += padded(sizes_[l - 1]), d += mine.count) {
        for (int64_t i = 0; i < mine.count; i += kLanes) {
          const Vector x = load(a + i);
          store(d + i, load(d + i) * x * (all(1.0f) - x));
        }
      }
    }
    return cost;
  }

  // v → v + the sum of what the deltas say.
  void step(int64_t m) {
    add(m, forward_, b_);
    for (size_t l = 2; l <= depth_; ++l) {
      const Columns mine = columns(l - 1);
      add_product(deltas(l), m, activations(l - 1) + mine.from, padded(sizes_[l - 1]), back_[l].get(), sizes_[l],
                  mine.count);
    }
  }

  void add_to(Sums& sums, int64_t m) const { add(m, sums.w, sums.b); }

  // v → v + sums.
  void descend(const Sums& sums) {
    const auto add = [](float* to, const float* from, int64_t n) {
      for (int64_t i = 0; i < n; i += kLanes) store(to + i, load(to + i) + load(from + i));
    };
    for (size_t l = 1; l <= depth_; ++l) {
      add(forward_[l].get(), sums.w[l].get(), sums.size_w[l]);
      add(b_[l].get(), sums.b[l].get(), sums.size_b[l]);
      if (l == 1) continue;
      const int64_t n = sizes_[l], inputs = sizes_[l - 1], p = padded(n);
      const Columns mine = columns(l - 1);
      for (int64_t o = 0; o < n; ++o) {
        for (int64_t i = 0; i < mine.real; ++i) {
          back_[l][place(n, mine.count, kPanel, o, i)] = forward_[l][place(inputs, p, kPanel, mine.from + i, o)];
        }
      }
    }
  }

  bool any_nan(int64_t m) const {
    const int64_t p = padded(sizes_[depth_]);
    const float* a = outputs(0);
    // What is not NaN is from 0 to 1, and NaN is in any sum it is in.
    Vector sum{};
    for (int64_t i = 0; i < m * p; i += kLanes) sum += load(a + i);
    float total = 0;
    for (int i = 0; i < kLanes; ++i) total += sum[i];
    return std::isnan(total);
  }

  // Seconds in which others of the team had no processor.
  double lost() const { return lost_; }

  const float* outputs(int64_t e) const { return activations(depth_) + e * padded(sizes_[depth_]); }

 private:
  // The columns of layer l that are computed here.
  Columns columns(size_t l) const { return l == 1 ? first_ : Columns{0, padded(sizes_[l]), sizes_[l]}; }

  // All activations of layer l, (m, p_l).
  float* activations(size_t l) const { return l == 1 ? team_.activations(round_) : a_[l].get(); }

  // Calls f with what goes into layer l.
  template <typename F>
  void with_inputs(size_t l, const F& f) const {
    if (l > 1) {
      f(ByExample{activations(l - 1), padded(sizes_[l - 1]), sizes_[l - 1]});
    } else if (!gathered_.empty()) {
      f(gathered_[round_ % 2].inputs());
    } else {
      f(ByExample{copied_[round_ % 2].get(), sizes_[0], sizes_[0]});
    }
  }

  template <typename Which>
  void gather(int64_t round, const Block& block, const Which& which, int64_t after) {
    if (!gathered_.empty()) {
      gathered_[round % 2].fill(block.at, block.m, which, after);
    } else {
      const int64_t width = sizes_[0];
      float* to = copied_[round % 2].get();
      for (int64_t e = 0; e < block.m; ++e) {
        std::memcpy(to + e * width, examples_.floats + which(block.at + e) * width, width * 4);
      }
    }
  }

  // Of layers after the first, which are whole.
  ByExample deltas(size_t l) const { return {delta_[l].get(), padded(sizes_[l]), sizes_[l]}; }

  void add(int64_t m, const std::vector<Floats>& w, const std::vector<Floats>& b) const {
    for (size_t l = 1; l <= depth_; ++l) {
      const int64_t p = columns(l).count;
      const float* d = delta_[l].get();
      for (int64_t i = 0; i < p; i += kLanes) {
        Vector sum{};
        for (int64_t e = 0; e < m; ++e) sum += load(d + e * p + i);
        store(b[l].get() + i, load(b[l].get() + i) + sum);
      }
      with_inputs(l, [&](const auto& in) { add_product(in, m, d, p, w[l].get(), sizes_[l - 1], p); });
    }
  }

  template <typename Which>
  double errors(const Block& block, const Which& which, float rate) {
    const int64_t n = sizes_[depth_], p = padded(n);
    double cost = 0;
    for (int64_t e = 0; e < block.m; ++e) {
      const float* a = outputs(e);
      float* d = delta_[depth_].get() + e * p;
      Vector squares{};
      for (int64_t i = 0; i < p; i += kLanes) {
        const Vector x = load(a + i);
        Vector off = x;
        if (examples_.labels != nullptr) {
          off -= unit(examples_.labels[which(block.at + e)] - i);
        } else {
          const float* y = examples_.targets + which(block.at + e) * n;
          for (int64_t k = i; k < std::min(i + kLanes, n); ++k) off[k - i] -= y[k];
        }
        squares += off * off;
        store(d + i, off * x * (all(1.0f) - x) * all(-rate));
      }
      float sum = 0;
      for (int i = 0; i < kLanes; ++i) sum += squares[i];
      cost += 0.5 * sum;
    }
    return cost;
  }

  const std::vector<int64_t>& sizes_;
  const Examples& examples_;
  const size_t depth_;
  Team& team_;
  const int rank_;
  Columns first_;
  int64_t round_ = 0;
  double lost_ = 0;
  // Of this round and the next, in turns: bytes as numbers by tile, or floats as they are.
  std::vector<Gathered> gathered_;
  std::vector<Floats> copied_, forward_, back_, b_, a_, delta_;
};

}  // namespace
}  // namespace jaxgd::JAXGD_MACHINE
