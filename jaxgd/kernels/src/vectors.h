// Vectors of JAXGD_LANES floats, the sigmoid of one, and what is summed up with them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <type_traits>

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

}  // namespace
}  // namespace jaxgd::JAXGD_MACHINE
