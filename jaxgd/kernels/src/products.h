// The two products that descent is made of, of weights (rows, p) and a mini-batch's numbers x.
//
// Weights lie in panels of two vectors: panel q holds columns q · kPanel to (q + 1) · kPanel of all rows, one row after
// the other; the last panel may be one vector wide. Of a mini-batch x lies input by input: x[k · stride + e] is the
// number of example e that meets row list[k] of the weights. Tiles of up to kMost examples by a panel stay in registers.
#pragma once

#include <type_traits>

#include "vectors.h"

namespace jaxgd::JAXGD_MACHINE {
namespace {

constexpr int kPanel = 2 * kLanes;
// Examples of a tile: its sums, a row of the panel and one number of x fill the registers, 32 with AVX-512, else 16.
constexpr int kMost = kLanes == 16 ? 12 : 6;

// A mini-batch's numbers that meet rows of weights.
struct Inputs {
  const float* x;
  int64_t stride;
  const int32_t* list;
  int64_t count;
};

// out[e] = start + Σ_k x[k][e] · w[list[k]], E examples by T vectors.
template <int E, int T>
inline void multiply_tile(const Inputs& in, const float* x, const float* w, const float* start, float* out, int64_t p) {
  Vector sums[E][T];
  for (int t = 0; t < T; ++t) {
    const Vector first = start == nullptr ? Vector{} : load(start + t * kLanes);
    for (int e = 0; e < E; ++e) sums[e][t] = first;
  }
  for (int64_t k = 0; k < in.count; ++k, x += in.stride) {
    const float* row = w + in.list[k] * int64_t{T * kLanes};
    Vector weights[T];
    for (int t = 0; t < T; ++t) weights[t] = load(row + t * kLanes);
    for (int e = 0; e < E; ++e) {
      const Vector number = all(x[e]);
      for (int t = 0; t < T; ++t) sums[e][t] += number * weights[t];
    }
  }
  for (int e = 0; e < E; ++e) {
    for (int t = 0; t < T; ++t) store(out + e * p + t * kLanes, sums[e][t]);
  }
}

// w[list[k]] += Σ_e x[k][e] · d[e], E examples by T vectors; summed up first, so that a weight is rounded once.
template <int E, int T>
inline void add_tile(const Inputs& in, const float* x, const float* d, int64_t p, float* w) {
  Vector factors[E][T];
  for (int e = 0; e < E; ++e) {
    for (int t = 0; t < T; ++t) factors[e][t] = load(d + e * p + t * kLanes);
  }
  for (int64_t k = 0; k < in.count; ++k, x += in.stride) {
    float* row = w + in.list[k] * int64_t{T * kLanes};
    Vector sums[T] = {};
    for (int e = 0; e < E; ++e) {
      const Vector number = all(x[e]);
      for (int t = 0; t < T; ++t) sums[t] += number * factors[e][t];
    }
    for (int t = 0; t < T; ++t) store(row + t * kLanes, load(row + t * kLanes) + sums[t]);
  }
}

// Calls f with n, from 1 to kMost, as a constant.
template <int N = kMost, typename F>
inline void as_constant(int64_t n, F&& f) {
  if constexpr (N > 0) {
    if (n == N) {
      f(std::integral_constant<int, N>{});
    } else {
      as_constant<N - 1>(n, f);
    }
  }
}

// Calls f(E, T, e, o) for tiles of m examples by p columns: E examples from e on, T vectors from column o on.
template <typename F>
inline void for_tiles(int64_t m, int64_t p, F&& f) {
  const int64_t parts = (m + kMost - 1) / kMost;
  for (int64_t o = 0; o < p; o += kPanel) {
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t e = m * part / parts;
      as_constant(m * (part + 1) / parts - e, [&](auto count) {
        if (p - o >= kPanel) {
          f(count, std::integral_constant<int, 2>{}, e, o);
        } else {
          f(count, std::integral_constant<int, 1>{}, e, o);
        }
      });
    }
  }
}

// out (m, p) = start + x · w, with weights (rows, p).
inline void multiply(const Inputs& in, int64_t m, const float* w, int64_t rows, const float* start, float* out, int64_t p) {
  for_tiles(m, p, [&](auto count, auto vectors, int64_t e, int64_t o) {
    multiply_tile<count.value, vectors.value>(in, in.x + e, w + o * rows, start == nullptr ? nullptr : start + o,
                                              out + e * p + o, p);
  });
}

// w (rows, p) += xᵀ · d, with d (m, p).
inline void add_product(const Inputs& in, int64_t m, const float* d, int64_t p, float* w, int64_t rows) {
  for_tiles(m, p, [&](auto count, auto vectors, int64_t e, int64_t o) {
    add_tile<count.value, vectors.value>(in, in.x + e, d + e * p + o, p, w + o * rows);
  });
}

}  // namespace
}  // namespace jaxgd::JAXGD_MACHINE
