// A network as the kernels keep it, and what it can do with a mini-batch: forward, back, and a step.
//
// Weights lie as products.h says, with a row for each input, (n_{l-1}, p_l): an input that is zero, as most pixels are,
// costs nothing. Past the first layer the transposed (n_l, p_{l-1}) are kept too, for the way back, and updated alike.
// A mini-batch's activations and deltas are (m, p_l).
#pragma once

#include <cmath>
#include <optional>
#include <vector>

#include "descent.h"
#include "products.h"
#include "rows.h"
#include "vectors.h"

namespace jaxgd::JAXGD_MACHINE {
namespace {

// A sum of gradients, as the weights and biases lie here.
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

// A network in the kernels' layout, with room for a mini-batch of up to `block` examples.
class Machine {
 public:
  Machine(const std::vector<int64_t>& sizes, const Examples& examples, int64_t block)
      : sizes_(sizes), examples_(examples), depth_(sizes.size() - 1) {
    if (examples.bytes != nullptr) gathered_.emplace(examples, sizes[0], block);
    const size_t count = depth_ + 1;
    forward_.resize(count), back_.resize(count), b_.resize(count);
    a_.resize(count), delta_.resize(count);
    if (examples.floats != nullptr) a_[0] = zeros(block * sizes[0]);
    for (size_t l = 1; l <= depth_; ++l) {
      forward_[l] = zeros(sizes[l - 1] * padded(sizes[l]));
      if (l > 1) back_[l] = zeros(sizes[l] * padded(sizes[l - 1]));
      b_[l] = zeros(padded(sizes[l]));
      a_[l] = zeros(block * padded(sizes[l]));
      delta_[l] = zeros(block * padded(sizes[l]));
    }
  }

  void read(const Layers& from) {
    for (size_t l = 1; l <= depth_; ++l) {
      const int64_t rows = sizes_[l], columns = sizes_[l - 1];
      for (int64_t o = 0; o < rows; ++o) {
        for (int64_t i = 0; i < columns; ++i) {
          const float x = from.w[l][o * columns + i];
          forward_[l][place(columns, padded(rows), kPanel, i, o)] = x;
          if (l > 1) back_[l][place(rows, padded(columns), kPanel, o, i)] = x;
        }
      }
      std::memcpy(b_[l].get(), from.b[l], rows * 4);
    }
  }

  void write(const MutableLayers& to) const {
    for (size_t l = 1; l <= depth_; ++l) {
      const int64_t rows = sizes_[l], columns = sizes_[l - 1], p = padded(rows);
      for (int64_t o = 0; o < rows; ++o) {
        for (int64_t i = 0; i < columns; ++i) to.w[l][o * columns + i] = forward_[l][place(columns, p, kPanel, i, o)];
      }
      std::memcpy(to.b[l], b_[l].get(), rows * 4);
    }
  }

  // The outputs of m examples, the e-th of which is row which(e); the `next` ones are wanted soon.
  template <typename Which>
  void feed_forward(int64_t m, const Which& which, int64_t next) {
    if (examples_.labels != nullptr) {
      for (int64_t e = 0; e < m; ++e) __builtin_prefetch(examples_.labels + which(e));
    }
    if (gathered_) {
      gathered_->fill(m, which, next);
    } else {
      const int64_t width = sizes_[0];
      for (int64_t e = 0; e < m; ++e) std::memcpy(a_[0].get() + e * width, examples_.floats + which(e) * width, width * 4);
    }
    for (size_t l = 1; l <= depth_; ++l) {
      with_inputs(l, [&](const auto& in) {
        multiply(in, m, forward_[l].get(), sizes_[l - 1], b_[l].get(), a_[l].get(), padded(sizes_[l]));
      });
      fire(l, m);
    }
  }

  // The deltas −rate · ∂(½‖y − a‖²)/∂z of each of the m examples, for all layers. Returns the sum of ½‖y − a‖².
  template <typename Which>
  double feed_back(int64_t m, const Which& which, float rate) {
    const double cost = errors(m, which, rate);
    for (size_t l = depth_; l > 1; --l) {
      const int64_t p = padded(sizes_[l - 1]);
      multiply(deltas(l), m, back_[l].get(), sizes_[l], nullptr, delta_[l - 1].get(), p);
      for (int64_t i = 0; i < m * p; i += kLanes) {
        const Vector a = load(a_[l - 1].get() + i);
        float* d = delta_[l - 1].get() + i;
        store(d, load(d) * a * (all(1.0f) - a));
      }
    }
    return cost;
  }

  // v → v + the sum of what the deltas say.
  void step(int64_t m) {
    add(m, forward_, b_);
    for (size_t l = 2; l <= depth_; ++l) {
      add_product(deltas(l), m, a_[l - 1].get(), padded(sizes_[l - 1]), back_[l].get(), sizes_[l]);
    }
  }

  void add_to(Sums& sums, int64_t m) const { add(m, sums.w, sums.b); }

  // v → v + sums.
  void descend(const Sums& sums) {
    for (size_t l = 1; l <= depth_; ++l) {
      const int64_t p = padded(sizes_[l]), columns = sizes_[l - 1];
      const auto add = [](float* to, const float* from, int64_t n) {
        for (int64_t i = 0; i < n; i += kLanes) store(to + i, load(to + i) + load(from + i));
      };
      add(forward_[l].get(), sums.w[l].get(), columns * p);
      add(b_[l].get(), sums.b[l].get(), p);
      if (l == 1) continue;
      for (int64_t o = 0; o < sizes_[l]; ++o) {
        for (int64_t i = 0; i < columns; ++i) {
          back_[l][place(sizes_[l], padded(columns), kPanel, o, i)] = forward_[l][place(columns, p, kPanel, i, o)];
        }
      }
    }
  }

  bool any_nan(int64_t m) const {
    const int64_t p = padded(sizes_[depth_]);
    const float* a = a_[depth_].get();
    // What is not NaN is from 0 to 1, and NaN is in any sum it is in.
    Vector sum{};
    for (int64_t i = 0; i < m * p; i += kLanes) sum += load(a + i);
    float total = 0;
    for (int i = 0; i < kLanes; ++i) total += sum[i];
    return std::isnan(total);
  }

  const float* outputs(int64_t e) const { return a_[depth_].get() + e * padded(sizes_[depth_]); }

 private:
  // Calls f with what goes into layer l.
  template <typename F>
  void with_inputs(size_t l, const F& f) const {
    if (l == 1 && gathered_) {
      f(gathered_->inputs());
    } else {
      f(ByExample{a_[l - 1].get(), l == 1 ? sizes_[0] : padded(sizes_[l - 1]), sizes_[l - 1]});
    }
  }

  ByExample deltas(size_t l) const { return {delta_[l].get(), padded(sizes_[l]), sizes_[l]}; }

  void add(int64_t m, const std::vector<Floats>& w, const std::vector<Floats>& b) const {
    for (size_t l = 1; l <= depth_; ++l) {
      const int64_t p = padded(sizes_[l]);
      const float* d = delta_[l].get();
      for (int64_t i = 0; i < p; i += kLanes) {
        Vector sum{};
        for (int64_t e = 0; e < m; ++e) sum += load(d + e * p + i);
        store(b[l].get() + i, load(b[l].get() + i) + sum);
      }
      with_inputs(l, [&](const auto& in) { add_product(in, m, d, p, w[l].get(), sizes_[l - 1]); });
    }
  }

  // a = σ(z) in place, and 0 where there is no neuron.
  void fire(size_t l, int64_t m) {
    const int64_t n = sizes_[l], p = padded(n);
    for (int64_t e = 0; e < m; ++e) {
      float* a = a_[l].get() + e * p;
      for (int64_t i = 0; i < p; i += kLanes) store(a + i, first(sigmoid(load(a + i)), n - i));
    }
  }

  template <typename Which>
  double errors(int64_t m, const Which& which, float rate) {
    const int64_t n = sizes_[depth_], p = padded(n);
    double cost = 0;
    for (int64_t e = 0; e < m; ++e) {
      const float* a = outputs(e);
      float* d = delta_[depth_].get() + e * p;
      Vector squares{};
      for (int64_t i = 0; i < p; i += kLanes) {
        const Vector x = load(a + i);
        Vector off = x;
        if (examples_.labels != nullptr) {
          off -= unit(examples_.labels[which(e)] - i);
        } else {
          const float* y = examples_.targets + which(e) * n;
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
  std::optional<Gathered> gathered_;
  std::vector<Floats> forward_, back_, b_, a_, delta_;
};

}  // namespace
}  // namespace jaxgd::JAXGD_MACHINE
