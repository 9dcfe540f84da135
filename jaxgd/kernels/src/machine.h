// A network as the kernels keep it, and what it can do with a mini-batch: forward, back, and a step.
//
// The first layer's weights lie input by input, (n_0, p_1): what an input adds to all neurons is one row, and an input
// that is zero, as most pixels are, costs nothing. Of the other layers both orders are kept, (n_{l-1}, p_l) for the way
// forward and (n_l, p_{l-1}) for the way back, and updated alike.
#pragma once

#include <cmath>

#include "descent.h"
#include "rows.h"
#include "vectors.h"

namespace jaxgd::JAXGD_MACHINE {
namespace {

// A network in the kernels' layout, with room for a mini-batch's activations and deltas.
class Machine {
 public:
  Machine(const std::vector<int64_t>& sizes, int64_t batch) : sizes_(sizes), depth_(sizes.size() - 1) {
    const size_t count = depth_ + 1;
    forward_.resize(count), back_.resize(count), b_.resize(count), a_.resize(count), delta_.resize(count);
    for (size_t l = 1; l <= depth_; ++l) {
      forward_[l] = zeros(sizes[l - 1] * padded(sizes[l]));
      if (l > 1) back_[l] = zeros(sizes[l] * padded(sizes[l - 1]));
      b_[l] = zeros(padded(sizes[l]));
      a_[l] = zeros(batch * padded(sizes[l]));
      delta_[l] = zeros(batch * padded(sizes[l]));
    }
  }

  void read(const Layers& from) {
    for (size_t l = 1; l <= depth_; ++l) {
      const int64_t rows = sizes_[l], columns = sizes_[l - 1];
      for (int64_t o = 0; o < rows; ++o) {
        for (int64_t i = 0; i < columns; ++i) {
          const float x = from.w[l][o * columns + i];
          forward_[l][i * padded(rows) + o] = x;
          if (l > 1) back_[l][o * padded(columns) + i] = x;
        }
      }
      std::memcpy(b_[l].get(), from.b[l], rows * 4);
    }
  }

  void write(const MutableLayers& to) const {
    for (size_t l = 1; l <= depth_; ++l) {
      const int64_t rows = sizes_[l], columns = sizes_[l - 1];
      for (int64_t o = 0; o < rows; ++o) {
        for (int64_t i = 0; i < columns; ++i) to.w[l][o * columns + i] = forward_[l][i * padded(rows) + o];
      }
      std::memcpy(to.b[l], b_[l].get(), rows * 4);
    }
  }

  // The outputs of m examples, the e-th of which is row(e).
  template <typename Rows, typename Which>
  void feed_forward(const Rows& rows, int64_t m, const Which& which) {
    for (int64_t e = 0; e < m; ++e) {
      const auto row = rows(which(e));
      const int64_t p = padded(sizes_[1]);
      for_tiles(p / kLanes, 0, [&](auto t, int64_t at) {
        weighted_sum<t.value>(row, forward_[1].get() + at, p, Rows::kScale, b_[1].get() + at, a_[1].get() + e * p + at);
      });
    }
    fire(1, m);
    for (size_t l = 2; l <= depth_; ++l) {
      const int64_t p = padded(sizes_[l]), before = padded(sizes_[l - 1]);
      for (int64_t e = 0; e < m; ++e) {
        const DenseRow<float> row{a_[l - 1].get() + e * before, sizes_[l - 1]};
        for_tiles(p / kLanes, 0, [&](auto t, int64_t at) {
          weighted_sum<t.value>(row, forward_[l].get() + at, p, 1.0f, b_[l].get() + at, a_[l].get() + e * p + at);
        });
      }
      fire(l, m);
    }
  }

  // delta_[l] = ∂(½‖y − a‖²)/∂z of each of the m examples, for all layers. Returns the sum of ½‖y − a‖².
  template <typename Which>
  double feed_back(const Examples& examples, int64_t m, const Which& which) {
    const double cost = errors(examples, m, which);
    for (size_t l = depth_; l > 1; --l) {
      const int64_t p = padded(sizes_[l]), before = padded(sizes_[l - 1]);
      for (int64_t e = 0; e < m; ++e) {
        const DenseRow<float> row{delta_[l].get() + e * p, sizes_[l]};
        float* d = delta_[l - 1].get() + e * before;
        for_tiles(before / kLanes, 0, [&](auto t, int64_t at) {
          weighted_sum<t.value>(row, back_[l].get() + at, before, 1.0f, nullptr, d + at);
        });
        const float* a = a_[l - 1].get() + e * before;
        for (int64_t i = 0; i < before; i += kLanes) {
          const Vector x = load(a + i);
          store(d + i, load(d + i) * x * (all(1.0f) - x));
        }
      }
    }
    return cost;
  }

  // v → v − rate · Σ ∂(½‖y − a‖²)/∂v over the m examples.
  template <typename Rows, typename Which>
  void step(const Rows& rows, int64_t m, const Which& which, float rate) {
    for (size_t l = 1; l <= depth_; ++l) {
      const int64_t p = padded(sizes_[l]);
      float* d = delta_[l].get();
      // From here on the deltas are −rate · δ, and for the first layer's weights the inputs' scale is in them too.
      for (int64_t i = 0; i < m * p; i += kLanes) store(d + i, load(d + i) * all(-rate));
      for (int64_t i = 0; i < p; i += kLanes) {
        Vector sum{};
        for (int64_t e = 0; e < m; ++e) sum += load(d + e * p + i);
        store(b_[l].get() + i, load(b_[l].get() + i) + sum);
      }
      if (l == 1) continue;
      const int64_t before = padded(sizes_[l - 1]);
      const float* a = a_[l - 1].get();
      add_product(a, before, sizes_[l - 1], d, p, m, forward_[l].get());
      add_product(d, p, sizes_[l], a, before, m, back_[l].get());
    }
    const int64_t p = padded(sizes_[1]);
    float* d = delta_[1].get();
    if (Rows::kScale != 1.0f) {
      for (int64_t i = 0; i < m * p; i += kLanes) store(d + i, load(d + i) * all(Rows::kScale));
    }
    for (int64_t e = 0; e < m; ++e) add_rows(rows(which(e)), d + e * p, p, forward_[1].get());
  }

  // The sum of ∂(½‖y − a‖²)/∂v over the m examples is added to sums, which are like forward_ and b_.
  template <typename Rows, typename Which>
  void add_gradient(const Rows& rows, int64_t m, const Which& which, std::vector<Floats>& w, std::vector<Floats>& b) {
    for (size_t l = 1; l <= depth_; ++l) {
      const int64_t p = padded(sizes_[l]);
      float* d = delta_[l].get();
      for (int64_t e = 0; e < m; ++e) {
        for (int64_t i = 0; i < p; i += kLanes) {
          store(b[l].get() + i, load(b[l].get() + i) + load(d + e * p + i));
        }
        if (l > 1) add_rows(DenseRow<float>{a_[l - 1].get() + e * padded(sizes_[l - 1]), sizes_[l - 1]}, d + e * p, p, w[l].get());
      }
      if (l > 1) continue;
      if (Rows::kScale != 1.0f) {
        for (int64_t i = 0; i < m * p; i += kLanes) store(d + i, load(d + i) * all(Rows::kScale));
      }
      for (int64_t e = 0; e < m; ++e) add_rows(rows(which(e)), d + e * p, p, w[1].get());
    }
  }

  // v → v − rate · w, with w and b sums as those above.
  void descend(const std::vector<Floats>& w, const std::vector<Floats>& b, float rate) {
    for (size_t l = 1; l <= depth_; ++l) {
      const int64_t p = padded(sizes_[l]), columns = sizes_[l - 1];
      for (int64_t i = 0; i < columns * p; i += kLanes) {
        store(forward_[l].get() + i, load(forward_[l].get() + i) - all(rate) * load(w[l].get() + i));
      }
      for (int64_t i = 0; i < p; i += kLanes) {
        store(b_[l].get() + i, load(b_[l].get() + i) - all(rate) * load(b[l].get() + i));
      }
      if (l == 1) continue;
      for (int64_t o = 0; o < sizes_[l]; ++o) {
        for (int64_t i = 0; i < columns; ++i) back_[l][o * padded(columns) + i] = forward_[l][i * p + o];
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
  // a = σ(z) in place, and 0 where there is no neuron.
  void fire(size_t l, int64_t m) {
    const int64_t n = sizes_[l], p = padded(n);
    for (int64_t e = 0; e < m; ++e) {
      float* a = a_[l].get() + e * p;
      for (int64_t i = 0; i < p; i += kLanes) store(a + i, sigmoid(load(a + i)));
      for (int64_t i = n; i < p; ++i) a[i] = 0.0f;
    }
  }

  template <typename Which>
  double errors(const Examples& examples, int64_t m, const Which& which) {
    const int64_t n = sizes_[depth_], p = padded(n);
    double cost = 0;
    for (int64_t e = 0; e < m; ++e) {
      const float* a = outputs(e);
      float* d = delta_[depth_].get() + e * p;
      std::memcpy(d, a, p * 4);
      if (examples.labels != nullptr) {
        d[examples.labels[which(e)]] -= 1.0f;
      } else {
        const float* y = examples.targets + which(e) * n;
        for (int64_t i = 0; i < n; ++i) d[i] -= y[i];
      }
      Vector squares{};
      for (int64_t i = 0; i < p; i += kLanes) {
        const Vector x = load(a + i), off = load(d + i);
        squares += off * off;
        store(d + i, off * x * (all(1.0f) - x));
      }
      float sum = 0;
      for (int i = 0; i < kLanes; ++i) sum += squares[i];
      cost += 0.5 * sum;
    }
    return cost;
  }

  template <typename Row>
  static void add_rows(const Row& row, const float* d, int64_t p, float* w) {
    for_tiles(p / kLanes, 0, [&](auto t, int64_t at) { add_outer<t.value>(row, d + at, w + at, p); });
  }

  // w[i] += Σ_e left[e][i] · right[e] for rows i of w, the sum over e first, so that each weight is rounded once a step.
  static void add_product(const float* left, int64_t left_stride, int64_t rows, const float* right, int64_t p, int64_t m,
                          float* w) {
    for_tiles(p / kLanes, 0, [&](auto t, int64_t at) {
      constexpr int T = decltype(t)::value;
      constexpr int kTurns = T >= 8 ? 1 : T >= 4 ? 2 : 4;
      const auto some = [&](auto turns, int64_t i) {
        constexpr int U = decltype(turns)::value;
        Vector sums[U][T] = {};
        for (int64_t e = 0; e < m; ++e) {
          for (int u = 0; u < U; ++u) {
            const Vector x = all(left[e * left_stride + i + u]);
            for (int k = 0; k < T; ++k) sums[u][k] += x * load(right + e * p + at + k * kLanes);
          }
        }
        for (int u = 0; u < U; ++u) {
          float* to = w + (i + u) * p + at;
          for (int k = 0; k < T; ++k) store(to + k * kLanes, load(to + k * kLanes) + sums[u][k]);
        }
      };
      int64_t i = 0;
      for (; i + kTurns <= rows; i += kTurns) some(std::integral_constant<int, kTurns>{}, i);
      for (; i < rows; ++i) some(std::integral_constant<int, 1>{}, i);
    });
  }

  const std::vector<int64_t>& sizes_;
  size_t depth_;
  std::vector<Floats> forward_, back_, b_, a_, delta_;
};

}  // namespace
}  // namespace jaxgd::JAXGD_MACHINE
