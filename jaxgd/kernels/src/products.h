// The two products that descent is made of, of weights (rows, p) and a mini-batch's numbers x (rows, m).
//
// Weights lie in panels of two vectors: panel q holds columns q · kPanel to (q + 1) · kPanel of all rows, one row after
// the other; the last panel may be one vector wide. Tiles of up to kMost examples by a panel stay in registers.
#pragma once

#include <type_traits>

#include "vectors.h"

namespace jaxgd::JAXGD_MACHINE {
namespace {

constexpr int kPanel = 2 * kLanes;
// Examples of a tile: its sums, a row of the panel and one number of x fill the registers, 32 with AVX-512, else 16.
constexpr int kMost = kLanes == 16 ? 8 : 6;
// Rows that are gone through at a time, by all tiles: they stay in the first-level cache meanwhile.
constexpr int64_t kRows = 96;

// m examples go into so many tiles, the first of which is of these; the tiles are as large as each other or one larger.
inline int64_t tiles_of(int64_t m) { return (m + kMost - 1) / kMost; }
inline int64_t first_of(int64_t tile, int64_t m) { return m * tile / tiles_of(m); }

// One tile's numbers, input by input; they meet the rows of a list, which may leave out some.
struct Tile {
  static constexpr int64_t kStride = 8;
  float* x;
  int32_t* list;
  int64_t count;

  float number(int64_t k, int e) const { return x[k * kStride + e]; }
  int64_t row(int64_t k) const { return list[k]; }
};

// Numbers of m examples, tile by tile.
struct ByTile {
  const Tile* tiles;

  int64_t count(int64_t tile) const { return tiles[tile].count; }
  Tile part(int64_t tile, int64_t, int64_t k) const {
    return {tiles[tile].x + k * Tile::kStride, tiles[tile].list + k, tiles[tile].count - k};
  }
};

// Numbers that lie example by example, stride apart; they meet the rows from `first` on.
struct ByExample {
  const float* x;
  int64_t stride, many, first = 0;

  int64_t count(int64_t) const { return many; }
  ByExample part(int64_t, int64_t e, int64_t k) const { return {x + e * stride + k, stride, many - k, k}; }
  float number(int64_t k, int e) const { return x[e * stride + k]; }
  int64_t row(int64_t k) const { return first + k; }
};

// out[e] = start[e] + Σ_k x[k][e] · w[row(k)], E examples by T vectors, so far apart; no start is 0.
template <int E, int T, typename Numbers>
inline void multiply_tile(Numbers in, int64_t count, const float* w, const float* start, int64_t start_apart,
                          float* out, int64_t apart) {
  Vector sums[E][T];
  for (int e = 0; e < E; ++e) {
    for (int t = 0; t < T; ++t) sums[e][t] = start == nullptr ? Vector{} : load(start + e * start_apart + t * kLanes);
  }
  for (int64_t k = 0; k < count; ++k) {
    const float* row = w + in.row(k) * T * kLanes;
    Vector weights[T];
    for (int t = 0; t < T; ++t) weights[t] = load(row + t * kLanes);
    for (int e = 0; e < E; ++e) {
      const Vector number = all(in.number(k, e));
      for (int t = 0; t < T; ++t) sums[e][t] += number * weights[t];
    }
  }
  for (int e = 0; e < E; ++e) {
    for (int t = 0; t < T; ++t) store(out + e * apart + t * kLanes, sums[e][t]);
  }
}

// w[row(k)] += Σ_e x[k][e] · d[e], E examples by T vectors; summed up first, so that a weight is rounded once.
template <int E, int T, typename Numbers>
inline void add_tile(Numbers in, int64_t count, const float* d, int64_t apart, float* w) {
  Vector factors[E][T];
  for (int e = 0; e < E; ++e) {
    for (int t = 0; t < T; ++t) factors[e][t] = load(d + e * apart + t * kLanes);
  }
  for (int64_t k = 0; k < count; ++k) {
    float* row = w + in.row(k) * T * kLanes;
    Vector sums[T] = {};
    for (int e = 0; e < E; ++e) {
      const Vector number = all(in.number(k, e));
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

// Calls f(E, T, numbers, k, count, e, o) for tiles of m examples by p columns, so many rows at a time: E examples from
// e on, T vectors from column o on, and the numbers that meet the next `count` rows after k. At least once for k = 0.
template <typename Numbers, typename F>
inline void for_tiles(const Numbers& in, int64_t m, int64_t p, F&& f) {
  const int64_t tiles = tiles_of(m);
  int64_t longest = 1;
  for (int64_t tile = 0; tile < tiles; ++tile) longest = std::max(longest, in.count(tile));
  for (int64_t k = 0; k < longest; k += kRows) {
    for (int64_t o = 0; o < p; o += kPanel) {
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t count = std::min(kRows, in.count(tile) - k), e = first_of(tile, m);
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

// out (m, p), its rows so far apart, = start (p) + x · w, with weights (rows, p); no start is 0.
template <typename Numbers>
inline void multiply(const Numbers& in, int64_t m, const float* w, int64_t rows, int64_t p, const float* start,
                     float* out, int64_t apart) {
  for_tiles(in, m, p, [&](auto examples, auto vectors, const auto& x, int64_t k, int64_t count, int64_t e, int64_t o) {
    float* to = out + e * apart + o;
    const float* begin = k > 0 ? to : start == nullptr ? nullptr : start + o;
    multiply_tile<examples.value, vectors.value>(x, count, w + o * rows, begin, k > 0 ? apart : 0, to, apart);
  });
}

// w (rows, p) += xᵀ · d, with d (m, p), its rows so far apart.
template <typename Numbers>
inline void add_product(const Numbers& in, int64_t m, const float* d, int64_t apart, float* w, int64_t rows,
                        int64_t p) {
  for_tiles(in, m, p, [&](auto examples, auto vectors, const auto& x, int64_t, int64_t count, int64_t e, int64_t o) {
    add_tile<examples.value, vectors.value>(x, count, d + e * apart + o, apart, w + o * rows);
  });
}

}  // namespace
}  // namespace jaxgd::JAXGD_MACHINE
