// One thread's weights and biases in the layout of the kernels, and sums of gradients or updates in the same layout.
//
// The weights of layer l have one row per input, (n_{l-1}, p_l), in the panels of products.h. descent.h defines n_l and
// p_l. Layers after the first also keep the transpose, (n_l, p_{l-1}), for back-propagation; every update changes both
// copies. If several threads train one network, each holds only its own columns of the first layer, and of the second
// layer's transpose; team.h gives the reason.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "descent.h"
#include "products.h"
#include "vectors.h"

namespace jaxgd::JAXGD_ISA {
namespace {

// `count` columns of a layer, starting at column `from`. The first `real` are neurons; the rest are padding.
struct Columns {
  int64_t from, count, real;
};

// A sum of the examples' gradients or updates, in the layout of a thread's weights and biases.
struct Sums {
  std::vector<Floats> w, b;
  std::vector<int64_t> size_w, size_b;

  void clear() {
    for (size_t l = 1; l < w.size(); ++l) {
      std::memset(w[l].get(), 0, size_w[l] * sizeof(float));
      std::memset(b[l].get(), 0, size_b[l] * sizeof(float));
    }
  }
};

class Weights {
 public:
  // The weights of thread `rank` in a team of `threads`.
  Weights(const std::vector<int64_t>& sizes, int rank, int threads)
      : sizes_(sizes), depth_(sizes.size() - 1), rank_(rank), forward_(depth_ + 1), back_(depth_ + 1), b_(depth_ + 1) {
    const int64_t parts = padded(sizes[1]) / kPad;
    const int64_t from = parts * rank / threads * kPad, to = parts * (rank + 1) / threads * kPad;
    first_ = {from, to - from, std::min(to, sizes[1]) - from};
    for (size_t l = 1; l <= depth_; ++l) {
      forward_[l] = zeros(sizes[l - 1] * columns(l).count);
      if (l > 1) back_[l] = zeros(sizes[l] * columns(l - 1).count);
      b_[l] = zeros(columns(l).count);
    }
  }

  // The columns of layer l that this thread computes.
  Columns columns(size_t l) const { return l == 1 ? first_ : Columns{0, padded(sizes_[l]), sizes_[l]}; }

  // The weights of layer l are scale() times the numbers in forward()[l] and back()[l].
  const std::vector<Floats>& forward() const { return forward_; }
  const std::vector<Floats>& back() const { return back_; }
  const std::vector<Floats>& b() const { return b_; }
  double scale() const { return scale_; }

  // Copies a network into the layout of the kernels.
  void read(const Layers& from) {
    for (size_t l = 1; l <= depth_; ++l) {
      const int64_t n = sizes_[l], inputs = sizes_[l - 1];
      const Columns own = columns(l);
      for (int64_t o = 0; o < own.real; ++o) {
        const float* row = from.w[l] + (own.from + o) * inputs;
        for (int64_t i = 0; i < inputs; ++i) forward_[l][panel_index(inputs, own.count, kPanel, i, o)] = row[i];
      }
      std::memcpy(b_[l].get(), from.b[l] + own.from, own.real * sizeof(float));
      if (l == 1) continue;
      const Columns before = columns(l - 1);
      for (int64_t o = 0; o < n; ++o) {
        const float* row = from.w[l] + o * inputs + before.from;
        for (int64_t i = 0; i < before.real; ++i) back_[l][panel_index(n, before.count, kPanel, o, i)] = row[i];
      }
    }
  }

  // Copies the network to the caller's layout. All threads hold the same later layers, so only rank 0 writes them.
  void write(const MutableLayers& to) const {
    for (size_t l = 1; l <= (rank_ == 0 ? depth_ : 1); ++l) {
      const int64_t inputs = sizes_[l - 1];
      const Columns own = columns(l);
      for (int64_t o = 0; o < own.real; ++o) {
        float* row = to.w[l] + (own.from + o) * inputs;
        for (int64_t i = 0; i < inputs; ++i) {
          row[i] = static_cast<float>(scale_ * forward_[l][panel_index(inputs, own.count, kPanel, i, o)]);
        }
      }
      std::memcpy(to.b[l] + own.from, b_[l].get(), own.real * sizeof(float));
    }
  }

  // Returns sums of zero, with the shapes of these weights and biases.
  Sums sums() const {
    Sums zero;
    zero.w.resize(depth_ + 1);
    zero.b.resize(depth_ + 1);
    zero.size_w.resize(depth_ + 1);
    zero.size_b.resize(depth_ + 1);
    for (size_t l = 1; l <= depth_; ++l) {
      zero.size_b[l] = columns(l).count;
      zero.size_w[l] = sizes_[l - 1] * columns(l).count;
      zero.w[l] = zeros(zero.size_w[l]);
      zero.b[l] = zeros(zero.size_b[l]);
    }
    return zero;
  }

  // w → (1 − shrinkage) w. This changes only the scale, unless the scale leaves the range from 1/kMost to kMost.
  void shrink(double shrinkage) {
    constexpr double kMost = 0x1p20;
    scale_ *= 1 - shrinkage;
    if (scale_ > 1 / kMost && scale_ < kMost) return;
    for (size_t l = 1; l <= depth_; ++l) {
      JAXGD_ISA::scale(forward_[l].get(), sizes_[l - 1] * columns(l).count, scale_);
      if (l > 1) JAXGD_ISA::scale(back_[l].get(), sizes_[l] * columns(l - 1).count, scale_);
    }
    scale_ = 1;
  }

  // Adds the sums to the weights and biases. Then copies the updated weights to the transpose.
  void add(const Sums& sums) {
    const auto add = [](float* to, const float* from, int64_t n, double factor) {
      const Vector f = broadcast(static_cast<float>(factor));
      for (int64_t i = 0; i < n; i += kLanes) store(to + i, load(to + i) + load(from + i) * f);
    };
    for (size_t l = 1; l <= depth_; ++l) {
      add(forward_[l].get(), sums.w[l].get(), sums.size_w[l], 1 / scale_);
      add(b_[l].get(), sums.b[l].get(), sums.size_b[l], 1);
      if (l == 1) continue;
      const int64_t n = sizes_[l], inputs = sizes_[l - 1], p = padded(n);
      const Columns before = columns(l - 1);
      for (int64_t o = 0; o < n; ++o) {
        for (int64_t i = 0; i < before.real; ++i) {
          back_[l][panel_index(n, before.count, kPanel, o, i)] =
              forward_[l][panel_index(inputs, p, kPanel, before.from + i, o)];
        }
      }
    }
  }

 private:
  const std::vector<int64_t>& sizes_;
  const size_t depth_;
  const int rank_;
  Columns first_;
  std::vector<Floats> forward_, back_, b_;
  // An update with L2 regularization shrinks all weights. A pass over them took 15% to 20% of an epoch of [784, 30, 10]
  // and [784, 100, 10], and rounded each weight again. Changing this common factor of all weights needs no pass.
  double scale_ = 1;
};

}  // namespace
}  // namespace jaxgd::JAXGD_ISA
