// One thread's network, with the passes over a block of examples: feed forward, back-propagate, update, evaluate.
//
// If the inputs are bytes, the passes skip an input that is zero in all examples of a tile. The activations and deltas
// of a block are (m, p_l), with p_l as in descent.h. If several threads train one network, each holds only its own
// columns of the first layer's deltas.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "answers.h"
#include "descent.h"
#include "packing.h"
#include "products.h"
#include "team.h"
#include "vectors.h"
#include "weights.h"

namespace jaxgd::JAXGD_ISA {
namespace {

// A block of m examples that are processed together, from position `at` on.
struct Block {
  int64_t at, m;
};

// One thread's network, with buffers for a block of up to `block` examples. `rank` is the thread's number in the team.
class Trainer {
 public:
  Trainer(const std::vector<int64_t>& sizes, const Examples& examples, int64_t block, Cost cost, Team& team, int rank)
      : sizes_(sizes),
        examples_(examples),
        depth_(sizes.size() - 1),
        cost_(cost),
        team_(team),
        rank_(rank),
        weights_(sizes, rank, team.size()),
        answers_(examples, sizes.back()),
        a_(depth_ + 1),
        slope_(depth_ + 1),
        delta_(depth_ + 1) {
    for (int i = 0; i < 2; ++i) {
      if (examples.bytes != nullptr) {
        packed_.emplace_back(examples, sizes[0], block);
      } else {
        copied_.push_back(zeros(block * sizes[0]));
      }
    }
    for (size_t l = 1; l <= depth_; ++l) {
      const int64_t p = weights_.columns(l).count;
      if (l > 1) a_[l] = zeros(block * p);
      slope_[l] = zeros(block * p);
      delta_[l] = zeros(block * p);
    }
    if (cost == Cost::kCrossEntropy) z_ = zeros(block * padded(sizes[depth_]));
  }

  // `read` copies a network from the caller's layout. `write` copies it back.
  void read(const Layers& from) { weights_.read(from); }
  void write(const MutableLayers& to) const { weights_.write(to); }

  // Returns sums of zero, with the shapes of this thread's network.
  Sums sums() const { return weights_.sums(); }

  // Gathers the inputs of the first block. Call it once per epoch, or per part of an evaluation, before feed_forward.
  // Position i holds row row_of(i).
  template <typename RowOf>
  void begin(const Block& first, const RowOf& row_of) {
    gather(round_ + 1, first, row_of, 0);
  }

  // Computes the outputs of the gathered block, and gathers the block `next`. If the inputs are bytes, also prefetches
  // the rows of the `prefetch` examples after `next`.
  template <typename RowOf>
  void feed_forward(const Block& block, const RowOf& row_of, const Block& next, int64_t prefetch) {
    const int64_t m = block.m;
    if (examples_.labels != nullptr) {
      for (int64_t e = 0; e < m; ++e) __builtin_prefetch(examples_.labels + row_of(block.at + e));
    }
    ++round_;
    for (size_t l = 1; l <= depth_; ++l) {
      const Columns own = weights_.columns(l);
      float* a = activations(l) + own.from;
      weighted_inputs(l, m, a);
      if (l < depth_ || cost_ == Cost::kQuadratic) {
        activate(l, m, a, [](const Sigmoid& neurons) { return neurons.slope; });
      } else {
        std::memcpy(z_.get(), a, m * own.count * sizeof(float));
        activate(l, m, a, [](const Sigmoid& neurons) { return neurons.complement; });
      }
      if (l > 1) continue;
      team_.arrive(rank_);
      if (next.m > 0) gather(round_ + 1, next, row_of, prefetch);
      lost_ += team_.wait(round_, rank_);
    }
  }

  // Computes the deltas −rate · ∂(cost of the example)/∂z of all layers, for each example of a block.
  template <typename RowOf>
  void feed_back(const Block& block, const RowOf& row_of, float rate) {
    const int64_t m = block.m;
    output_deltas(block, row_of, rate);
    for (size_t l = depth_; l > 1; --l) {
      const Columns own = weights_.columns(l - 1);
      float* d = delta_[l - 1].get();
      multiply(deltas(l), m, weights_.back()[l].get(), sizes_[l], own.count, nullptr, d, own.count);
      const float* slope = slope_[l - 1].get();
      for (int64_t i = 0; i < m * own.count; i += kLanes) store(d + i, load(d + i) * load(slope + i));
      if (weights_.scale() != 1) scale(d, m * own.count, weights_.scale());
    }
  }

  // Adds a block's costs and its number of right answers to an evaluation. Clears `saturated` if an output is not
  // saturated.
  template <typename RowOf>
  void judge(const Block& block, const RowOf& row_of, Evaluation& result) const {
    constexpr float kEps = std::numeric_limits<float>::epsilon();
    const int64_t n = sizes_[depth_];
    for (int64_t e = 0; e < block.m; ++e) {
      const int64_t row = row_of(block.at + e);
      const float* a = outputs(e);
      result.cost += cost_ == Cost::kQuadratic ? 0.5 * answers_.squares(row, a)
                                               : answers_.cross_entropies(row, z_.get() + e * padded(n));
      result.right += answers_.is_right(row, a) ? 1 : 0;
      for (int64_t k = 0; k < n && result.saturated; ++k) result.saturated = a[k] <= kEps || a[k] >= 1 - kEps;
    }
  }

  // w → (1 − shrinkage) w. Then adds the examples' updates: delta · aᵀ to the weights and delta to the biases.
  void step(int64_t m, double shrinkage) {
    weights_.shrink(shrinkage);
    add(m, weights_.forward(), weights_.b(), 1 / weights_.scale());
    for (size_t l = 2; l <= depth_; ++l) {
      const Columns own = weights_.columns(l - 1);
      add_product(deltas(l), m, activations(l - 1) + own.from, padded(sizes_[l - 1]), weights_.back()[l].get(),
                  sizes_[l], own.count);
    }
  }

  // sums → sums + Σ of the examples' updates.
  void add_to(Sums& sums, int64_t m) { add(m, sums.w, sums.b, 1); }

  // w → (1 − shrinkage) w. Then adds the sums to the weights and biases.
  void descend(const Sums& sums, double shrinkage) {
    weights_.shrink(shrinkage);
    weights_.add(sums);
  }

  // True if no output of the block's m examples is NaN and, for the cross-entropy, every z of an output is finite.
  bool is_finite(int64_t m) const {
    const int64_t count = m * padded(sizes_[depth_]);
    Vector sum{};
    if (cost_ == Cost::kQuadratic) {
      // Every output is NaN or between 0 and 1, so the sum is NaN exactly if an output is.
      const float* a = outputs(0);
      for (int64_t i = 0; i < count; i += kLanes) sum += load(a + i);
    } else {
      // z − z is 0 if z is finite, and NaN otherwise.
      for (int64_t i = 0; i < count; i += kLanes) sum += load(z_.get() + i) - load(z_.get() + i);
    }
    return !std::isnan(total(sum));
  }

  // Seconds that this thread lost because another thread of the team had no processor.
  double lost() const { return lost_; }

  const float* outputs(int64_t e) const { return activations(depth_) + e * padded(sizes_[depth_]); }

 private:
  // All activations of layer l, (m, p_l).
  float* activations(size_t l) const { return l == 1 ? team_.activations(round_) : a_[l].get(); }

  // The deltas of a layer after the first; every thread holds all their columns.
  Strided deltas(size_t l) const { return {delta_[l].get(), padded(sizes_[l]), sizes_[l]}; }

  // Calls f with the inputs of layer l.
  template <typename F>
  void with_inputs(size_t l, const F& f) const {
    if (l > 1) {
      f(Strided{activations(l - 1), padded(sizes_[l - 1]), sizes_[l - 1]});
    } else if (!packed_.empty()) {
      f(packed_[round_ % 2].numbers());
    } else {
      f(Strided{copied_[round_ % 2].get(), sizes_[0], sizes_[0]});
    }
  }

  // Gathers the inputs of a block for one round. If the inputs are bytes, also prefetches the rows of the `prefetch`
  // examples after the block.
  template <typename RowOf>
  void gather(int64_t round, const Block& block, const RowOf& row_of, int64_t prefetch) {
    if (!packed_.empty()) {
      packed_[round % 2].pack(block.at, block.m, row_of, prefetch);
    } else {
      const int64_t width = sizes_[0];
      float* to = copied_[round % 2].get();
      for (int64_t e = 0; e < block.m; ++e) {
        std::memcpy(to + e * width, examples_.floats + row_of(block.at + e) * width, width * sizeof(float));
      }
    }
  }

  // Computes z of layer l for m examples, in the columns of this thread.
  void weighted_inputs(size_t l, int64_t m, float* z) const {
    const int64_t count = weights_.columns(l).count, p = padded(sizes_[l]);
    const float* b = weights_.b()[l].get();
    const bool scaled = weights_.scale() != 1;
    with_inputs(l, [&](const auto& in) {
      multiply(in, m, weights_.forward()[l].get(), sizes_[l - 1], count, scaled ? nullptr : b, z, p);
    });
    const Vector factor = broadcast(static_cast<float>(weights_.scale()));
    for (int64_t e = 0; scaled && e < m; ++e) {
      for (int64_t i = 0; i < count; i += kLanes) store(z + i, load(z + i) * factor + load(b + i));
      z += p;
    }
  }

  // Replaces z of layer l by a = σ(z) for m examples, and by 0 in the padding. Also stores σ′(z) or σ(−z):
  // `kept` selects one of them.
  template <typename Kept>
  void activate(size_t l, int64_t m, float* a, const Kept& kept) {
    const Columns own = weights_.columns(l);
    float* second = slope_[l].get();
    for (int64_t e = 0; e < m; ++e) {
      for (int64_t i = 0; i < own.count; i += kLanes) {
        const Sigmoid neurons = sigmoid(load(a + i));
        store(a + i, keep_first(neurons.value, own.real - i));
        store(second + i, kept(neurons));
      }
      a += padded(sizes_[l]);
      second += own.count;
    }
  }

  // Adds the examples' updates to biases b, and `factor` times the updates to weights w. Leaves the deltas multiplied
  // by `factor`.
  void add(int64_t m, const std::vector<Floats>& w, const std::vector<Floats>& b, double factor) {
    for (size_t l = 1; l <= depth_; ++l) {
      const int64_t p = weights_.columns(l).count;
      float* d = delta_[l].get();
      for (int64_t i = 0; i < p; i += kLanes) {
        Vector sum{};
        for (int64_t e = 0; e < m; ++e) sum += load(d + e * p + i);
        store(b[l].get() + i, load(b[l].get() + i) + sum);
      }
      if (factor != 1) scale(d, m * p, factor);
      with_inputs(l, [&](const auto& in) { add_product(in, m, d, p, w[l].get(), sizes_[l - 1], p); });
    }
  }

  // Computes the deltas of the output layer.
  template <typename RowOf>
  void output_deltas(const Block& block, const RowOf& row_of, float rate) {
    const int64_t p = padded(sizes_[depth_]);
    for (int64_t e = 0; e < block.m; ++e) {
      const int64_t row = row_of(block.at + e);
      const float *a = outputs(e), *second = slope_[depth_].get() + e * p;
      float* d = delta_[depth_].get() + e * p;
      if (cost_ == Cost::kQuadratic) {
        answers_.quadratic_deltas(row, a, second, rate, d);
      } else {
        answers_.cross_entropy_deltas(row, a, second, rate, d);
      }
    }
  }

  const std::vector<int64_t>& sizes_;
  const Examples& examples_;
  const size_t depth_;
  const Cost cost_;
  Team& team_;
  const int rank_;
  int64_t round_ = 0;
  double lost_ = 0;
  Weights weights_;
  Answers answers_;
  // packed_ or copied_ holds the inputs of this round and of the next one; the other is empty. Bytes are packed tile by
  // tile into packed_, and floats are copied unchanged to copied_.
  std::vector<PackedInputs> packed_;
  std::vector<Floats> copied_, a_, slope_, delta_;
  // The weighted inputs z of the outputs, for the cross-entropy. The output layer's slope_ is then σ(−z).
  Floats z_;
};

}  // namespace
}  // namespace jaxgd::JAXGD_ISA
