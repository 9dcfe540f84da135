// The answers of the examples, and the cost of a network's outputs.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "descent.h"
#include "vectors.h"

namespace jaxgd::JAXGD_ISA {
namespace {

// The arrays a, z, slope, complement and d hold one number per output, and padding up to padded(n) numbers.
class Answers {
 public:
  // The answers for a network with n outputs.
  Answers(const Examples& examples, int64_t n) : examples_(examples), n_(n) {}

  // Returns ‖y − a‖² of an example.
  float squares(int64_t row, const float* a) const {
    Vector sum{};
    for (int64_t i = 0; i < padded(n_); i += kLanes) {
      const Vector off = load(a + i) - targets(row, i);
      sum += off * off;
    }
    return total(sum);
  }

  // Returns Σ [softplus(z) − y z] over the outputs of an example.
  float cross_entropies(int64_t row, const float* z) const {
    Vector sum{};
    for (int64_t i = 0; i < padded(n_); i += kLanes) {
      sum += keep_first(cross_entropy(load(z + i), targets(row, i)), n_ - i);
    }
    return total(sum);
  }

  // Computes d = −rate · (a − y) σ′(z), the deltas of the quadratic cost.
  void quadratic_deltas(int64_t row, const float* a, const float* slope, float rate, float* d) const {
    for (int64_t i = 0; i < padded(n_); i += kLanes) {
      store(d + i, (load(a + i) - targets(row, i)) * load(slope + i) * broadcast(-rate));
    }
  }

  // Computes d = −rate · (a − y), the deltas of the cross-entropy, from a = σ(z) and complement = σ(−z).
  // Computes a − y as (1 − y) a − y σ(−z). For y = 1, a − 1 would round to 0 from z ≈ 17 on.
  void cross_entropy_deltas(int64_t row, const float* a, const float* complement, float rate, float* d) const {
    for (int64_t i = 0; i < padded(n_); i += kLanes) {
      const Vector y = targets(row, i), rest = broadcast(1.0f) - y;
      store(d + i, (rest * load(a + i) - y * load(complement + i)) * broadcast(-rate));
    }
  }

  // Returns true if the largest output of an example is at the right label. The first of several equal outputs counts,
  // and an example with a NaN among its outputs is wrong.
  bool is_right(int64_t row, const float* a) const {
    const int64_t label = label_of(row);
    bool right = !std::isnan(a[label]);
    for (int64_t k = 0; k < label; ++k) right &= a[k] < a[label];
    for (int64_t k = label + 1; k < n_; ++k) right &= a[k] <= a[label];
    return right;
  }

 private:
  int64_t label_of(int64_t row) const {
    if (examples_.labels != nullptr) return examples_.labels[row];
    const float* y = examples_.targets + row * n_;
    return std::max_element(y, y + n_) - y;
  }

  // Returns the targets y of the outputs i … i + kLanes − 1.
  Vector targets(int64_t row, int64_t i) const {
    if (examples_.labels != nullptr) return one_hot(examples_.labels[row] - i);
    Vector y{};
    for (int64_t k = i; k < std::min(i + kLanes, n_); ++k) y[k - i] = examples_.targets[row * n_ + k];
    return y;
  }

  const Examples& examples_;
  const int64_t n_;
};

}  // namespace
}  // namespace jaxgd::JAXGD_ISA
