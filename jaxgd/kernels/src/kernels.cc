// Forward, backward and update of a network of sigmoid neurons, by hand. Compiled once for each kind of machine:
// JAXGD_LANES is how many floats a vector holds, JAXGD_MACHINE the namespace.
//
// Layout. The first layer's weights lie input by input, (n_0, p_1): what an input adds to all neurons is one row, and an
// input that is zero, as most pixels are, costs nothing. Of the other layers both orders are kept, (n_{l-1}, p_l) for the
// way forward and (n_l, p_{l-1}) for the way back, and updated alike.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "descent.h"

namespace jaxgd::JAXGD_MACHINE {
namespace {

constexpr int kLanes = JAXGD_LANES;
typedef float Vector __attribute__((vector_size(4 * JAXGD_LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * JAXGD_LANES)));
// As it lies in a caller's memory.
typedef float Unaligned __attribute__((vector_size(4 * JAXGD_LANES), aligned(4), may_alias));

inline Vector load(const float* x) { return *reinterpret_cast<const Unaligned*>(x); }
inline void store(float* x, Vector v) { *reinterpret_cast<Unaligned*>(x) = v; }
inline Vector all(float x) { return x - Vector{}; }

// 1/(1 + exp(−z)), to about 1e-7 of its value. NaN stays NaN.
inline Vector sigmoid(Vector z) {
  // exp(−z) = 2^t = 2^k · 2^f with whole k and |f| ≤ ½.
  Vector t = z * all(-1.44269504088896340736f);
  t = t > all(126.0f) ? all(126.0f) : t;
  t = t < all(-126.0f) ? all(-126.0f) : t;
  // Adding and subtracting 1.5 · 2^23 rounds to a whole number.
  const Vector magic = all(12582912.0f);
  const Vector shifted = t + magic;
  const Vector f = t - (shifted - magic);
  const Integers k = reinterpret_cast<Integers>(shifted) - reinterpret_cast<Integers>(magic);
  // The Taylor series of 2^f up to f^7, whose rest is below 6e-9.
  Vector p = all(1.5252733804059841e-5f);
  p = p * f + all(1.5403530393381609e-4f);
  p = p * f + all(1.3333558146428443e-3f);
  p = p * f + all(9.6181291076284771e-3f);
  p = p * f + all(5.5504108664821580e-2f);
  p = p * f + all(2.4022650695910071e-1f);
  p = p * f + all(6.9314718055994531e-1f);
  p = p * f + all(1.0f);
  const Vector power = reinterpret_cast<Vector>((k + 127) << 23);
  return all(1.0f) / (all(1.0f) + p * power);
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};
using Floats = std::unique_ptr<float[], Free>;

// Zeros, on a cache line's boundary.
Floats zeros(int64_t n) {
  const size_t bytes = (static_cast<size_t>(std::max<int64_t>(n, 1)) * 4 + 63) / 64 * 64;
  float* x = static_cast<float*>(std::aligned_alloc(64, bytes));
  if (x == nullptr) throw std::bad_alloc();
  std::memset(x, 0, bytes);
  return Floats(x);
}

// A row of inputs, as (column, value) pairs.
struct SparseRow {
  const uint16_t* columns;
  const uint8_t* values;
  int64_t length;
  int64_t column(int64_t k) const { return columns[k]; }
  float value(int64_t k) const { return static_cast<float>(values[k]); }
};
template <typename T>
struct DenseRow {
  const T* values;
  int64_t length;
  int64_t column(int64_t k) const { return k; }
  float value(int64_t k) const { return static_cast<float>(values[k]); }
};

struct SparseRows {
  const Examples& examples;
  static constexpr float kScale = 1.0f / 255.0f;
  SparseRow operator()(int64_t r) const {
    const int64_t start = examples.starts[r];
    return {examples.columns + start, examples.values + start, examples.starts[r + 1] - start};
  }
  void prefetch(int64_t r) const {
    const int64_t start = examples.starts[r], end = examples.starts[r + 1];
    for (int64_t k = start; k < end; k += 32) __builtin_prefetch(examples.columns + k);
    for (int64_t k = start; k < end; k += 64) __builtin_prefetch(examples.values + k);
  }
};
struct ByteRows {
  const Examples& examples;
  int64_t width;
  static constexpr float kScale = 1.0f / 255.0f;
  DenseRow<uint8_t> operator()(int64_t r) const { return {examples.bytes + r * width, width}; }
  void prefetch(int64_t r) const {
    for (int64_t k = 0; k < width; k += 64) __builtin_prefetch(examples.bytes + r * width + k);
  }
};
struct FloatRows {
  const Examples& examples;
  int64_t width;
  static constexpr float kScale = 1.0f;
  DenseRow<float> operator()(int64_t r) const { return {examples.floats + r * width, width}; }
  void prefetch(int64_t r) const {
    for (int64_t k = 0; k < width; k += 16) __builtin_prefetch(examples.floats + r * width + k);
  }
};

// out[0 … T vectors] = start + scale · Σ_k value(k) · w[column(k)]: T vectors of a row of w at a time, and several
// inputs in turn, since each sum would wait for itself.
template <int T, typename Row>
inline void weighted_sum(const Row& row, const float* w, int64_t stride, float scale, const float* start, float* out) {
  constexpr int kTurns = T >= 8 ? 1 : T >= 4 ? 2 : 4;
  Vector sums[kTurns][T] = {};
  int64_t k = 0;
  for (; k + kTurns <= row.length; k += kTurns) {
    for (int u = 0; u < kTurns; ++u) {
      const Vector x = all(row.value(k + u));
      const float* from = w + row.column(k + u) * stride;
      for (int t = 0; t < T; ++t) sums[u][t] += x * load(from + t * kLanes);
    }
  }
  for (; k < row.length; ++k) {
    const Vector x = all(row.value(k));
    const float* from = w + row.column(k) * stride;
    for (int t = 0; t < T; ++t) sums[0][t] += x * load(from + t * kLanes);
  }
  for (int t = 0; t < T; ++t) {
    Vector sum = sums[0][t];
    for (int u = 1; u < kTurns; ++u) sum += sums[u][t];
    store(out + t * kLanes, (start == nullptr ? Vector{} : load(start + t * kLanes)) + all(scale) * sum);
  }
}

// w[column(k)] += value(k) · d for all k: T vectors of each row.
template <int T, typename Row>
inline void add_outer(const Row& row, const float* d, float* w, int64_t stride) {
  Vector factor[T];
  for (int t = 0; t < T; ++t) factor[t] = load(d + t * kLanes);
  for (int64_t k = 0; k < row.length; ++k) {
    const Vector x = all(row.value(k));
    float* to = w + row.column(k) * stride;
    for (int t = 0; t < T; ++t) store(to + t * kLanes, load(to + t * kLanes) + x * factor[t]);
  }
}

// Calls f with T as a constant, for all of a row's vectors: eight at a time, then what is left.
template <int T = 8, typename F>
inline void for_tiles(int64_t vectors, int64_t first, F&& f) {
  if constexpr (T == 8) {
    for (; vectors - first >= 8; first += 8) f(std::integral_constant<int, 8>{}, first * kLanes);
    if (first < vectors) for_tiles<7>(vectors, first, f);
  } else if constexpr (T > 0) {
    if (vectors - first == T) {
      f(std::integral_constant<int, T>{}, first * kLanes);
    } else {
      for_tiles<T - 1>(vectors, first, f);
    }
  }
}

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

// Calls f with the form that the inputs have.
template <typename F>
auto with_rows(const Examples& examples, int64_t width, F&& f) {
  if (examples.starts != nullptr) return f(SparseRows{examples});
  if (examples.bytes != nullptr) return f(ByteRows{examples, width});
  return f(FloatRows{examples, width});
}

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
