// The two matrix products of gradient descent: xᵀ · w and x · d, with weights w (rows, p), and with the numbers
// x (rows, m) and d (m, p) of m examples.
//
// Both products are blocked for registers and caches. Weights are stored in panels that are two vectors wide: panel q
// holds columns q · kPanel to (q + 1) · kPanel − 1 of all rows, one row after the other. The last panel may be one
// vector wide. A tile is up to kTileRows examples by one panel. A microkernel computes one tile. It keeps the sums of
// xᵀ · w, or the numbers d, in registers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "vectors.h"

namespace jaxgd::JAXGD_ISA {
namespace {

constexpr int64_t kPanel = 2 * kLanes;
// The most examples in a tile. The sums of a tile, one row of the panel and one number of x must fit in the vector
// registers. There are 32 vector registers with AVX-512, and 16 with AVX2.
constexpr int64_t kTileRows = kLanes == 16 ? 8 : 6;
// All tiles multiply this many rows of a panel before any tile continues, so that these rows stay in the first-level
// cache.
constexpr int64_t kDepth = 96;

// Split m examples into ceil(m / kTileRows) tiles; first_of(t, m) is tile t's first example. Sizes differ by at most 1.
inline int64_t tiles_of(int64_t m) { return (m + kTileRows - 1) / kTileRows; }
inline int64_t first_of(int64_t tile, int64_t m) { return m * tile / tiles_of(m); }

// The numbers of one tile, packed input by input. number(k, e) belongs to example e, and multiplies row rows[k] of the
// weights. A tile may leave out inputs.
struct PackedTile {
  static constexpr int64_t kStride = 8;
  float* x;
  int32_t* rows;
  int64_t count;

  float number(int64_t k, int e) const { return x[k * kStride + e]; }
  int64_t row(int64_t k) const { return rows[k]; }
};

// The packed numbers of all examples, tile by tile.
struct Packed {
  const PackedTile* tiles;

  int64_t count(int64_t tile) const { return tiles[tile].count; }
  PackedTile part(int64_t tile, int64_t /*e*/, int64_t k) const {
    return {tiles[tile].x + k * PackedTile::kStride, tiles[tile].rows + k, tiles[tile].count - k};
  }
};

// Numbers stored example by example, with `stride` floats from one example to the next. Number k of each
// example multiplies row `first` + k of the weights.
struct Strided {
  const float* x;
  int64_t stride, length, first = 0;

  int64_t count(int64_t /*tile*/) const { return length; }
  Strided part(int64_t /*tile*/, int64_t e, int64_t k) const { return {x + e * stride + k, stride, length - k, k}; }
  float number(int64_t k, int e) const { return x[e * stride + k]; }
  int64_t row(int64_t k) const { return first + k; }
};

// A microkernel: out[e] = start[e] + Σ_k x[k][e] · w[row(k)], for E examples by T vectors. Strides are in floats from
// one example to the next. A null start means 0.
template <int E, int T, typename Numbers>
inline void multiply_tile(Numbers in, int64_t count, const float* w, const float* start, int64_t start_stride,
                          float* out, int64_t stride) {
  Vector sums[E][T];
  for (int e = 0; e < E; ++e) {
    for (int t = 0; t < T; ++t) sums[e][t] = start == nullptr ? Vector{} : load(start + e * start_stride + t * kLanes);
  }
  for (int64_t k = 0; k < count; ++k) {
    const float* row = w + in.row(k) * T * kLanes;
    Vector weights[T];
    for (int t = 0; t < T; ++t) weights[t] = load(row + t * kLanes);
    for (int e = 0; e < E; ++e) {
      const Vector number = broadcast(in.number(k, e));
      for (int t = 0; t < T; ++t) sums[e][t] += number * weights[t];
    }
  }
  for (int e = 0; e < E; ++e) {
    for (int t = 0; t < T; ++t) store(out + e * stride + t * kLanes, sums[e][t]);
  }
}

// A microkernel: w[row(k)] += Σ_e x[k][e] · d[e], for E examples by T vectors. The sum over the examples comes first,
// so that a tile rounds each weight only once.
template <int E, int T, typename Numbers>
inline void add_tile(Numbers in, int64_t count, const float* d, int64_t stride, float* w) {
  Vector factors[E][T];
  for (int e = 0; e < E; ++e) {
    for (int t = 0; t < T; ++t) factors[e][t] = load(d + e * stride + t * kLanes);
  }
  for (int64_t k = 0; k < count; ++k) {
    float* row = w + in.row(k) * T * kLanes;
    Vector sums[T] = {};
    for (int e = 0; e < E; ++e) {
      const Vector number = broadcast(in.number(k, e));
      for (int t = 0; t < T; ++t) sums[t] += number * factors[e][t];
    }
    for (int t = 0; t < T; ++t) store(row + t * kLanes, load(row + t * kLanes) + sums[t]);
  }
}

// Calls f with n, which is 1 to kTileRows, as a compile-time constant.
template <int N = kTileRows, typename F>
inline void as_constant(int64_t n, const F& f) {
  if constexpr (N > 0) {
    if (n == N) {
      f(std::integral_constant<int, N>{});
    } else {
      as_constant<N - 1>(n, f);
    }
  }
}

// Calls f(E, T, numbers, k, count, e, o) for every tile of m examples by p columns, kDepth inputs at a time. A tile has
// E examples from e on and T vectors from column o on. `numbers` are its inputs k … k + count − 1. Every tile is called
// at least once, with k = 0, even if it has no inputs.
template <typename Numbers, typename F>
inline void for_tiles(const Numbers& in, int64_t m, int64_t p, const F& f) {
  const int64_t tiles = tiles_of(m);
  int64_t longest = 1;
  for (int64_t tile = 0; tile < tiles; ++tile) longest = std::max(longest, in.count(tile));
  for (int64_t k = 0; k < longest; k += kDepth) {
    for (int64_t o = 0; o < p; o += kPanel) {
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t count = std::min(kDepth, in.count(tile) - k), e = first_of(tile, m);
        if (count <= 0 && k > 0) continue;
        as_constant(first_of(tile + 1, m) - e, [&](auto examples) {
          const auto numbers = in.part(tile, e, k);
          if (p - o >= kPanel) {
            f(examples, std::integral_constant<int, 2>{}, numbers, k, count, e, o);
          } else {
            f(examples, std::integral_constant<int, 1>{}, numbers, k, count, e, o);
          }
        });
      }
    }
  }
}

// out = start + xᵀ · w, with out (m, p), start (p) and weights (rows, p). `stride` is in floats from one row of out to
// the next. A null start means 0.
template <typename Numbers>
inline void multiply(const Numbers& in, int64_t m, const float* w, int64_t rows, int64_t p, const float* start,
                     float* out, int64_t stride) {
  for_tiles(in, m, p, [&](auto examples, auto vectors, const auto& x, int64_t k, int64_t count, int64_t e, int64_t o) {
    float* to = out + e * stride + o;
    const float* begin = start == nullptr ? nullptr : start + o;
    if (k > 0) begin = to;
    multiply_tile<examples.value, vectors.value>(x, count, w + o * rows, begin, k > 0 ? stride : 0, to, stride);
  });
}

// w += x · d, with weights (rows, p) and d (m, p). `stride` is in floats from one row of d to the next.
template <typename Numbers>
inline void add_product(const Numbers& in, int64_t m, const float* d, int64_t stride, float* w, int64_t rows,
                        int64_t p) {
  for_tiles(in, m, p,
            [&](auto examples, auto vectors, const auto& x, int64_t /*k*/, int64_t count, int64_t e, int64_t o) {
              add_tile<examples.value, vectors.value>(x, count, d + e * stride + o, stride, w + o * rows);
            });
}

}  // namespace
}  // namespace jaxgd::JAXGD_ISA
