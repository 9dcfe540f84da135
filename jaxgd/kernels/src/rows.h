// The inputs of a mini-batch, gathered from whole rows of bytes.
#pragma once

#include <utility>
#include <vector>

#include "descent.h"
#include "products.h"
#include "vectors.h"

namespace jaxgd::JAXGD_MACHINE {
namespace {

// As many bytes as a vector has; 16 × 16 bytes are turned in each 16 of them.
constexpr int kWide = 4 * kLanes;
typedef uint8_t Wide __attribute__((vector_size(4 * JAXGD_LANES)));

// The first or the last 8 of every 16 bytes of a and b, in turns.
template <int Half, int... I>
inline Wide zip(Wide a, Wide b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / 16 * 16 + Half * 8 + I % 16 / 2 + I % 2 * kWide)...);
}

// Byte j of rows[i] becomes byte i of rows[j], in each 16 bytes: four times rows are zipped with those 8 further on.
inline void turn(Wide (&rows)[16]) {
  constexpr auto lanes = std::make_integer_sequence<int, kWide>{};
#pragma GCC unroll 4
  for (int round = 0; round < 4; ++round) {
    Wide zipped[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      zipped[2 * i] = zip<0>(rows[i], rows[i + 8], lanes);
      zipped[2 * i + 1] = zip<1>(rows[i], rows[i + 8], lanes);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) rows[i] = zipped[i];
  }
}

// Which of the bytes are not zero, one bit each.
inline uint64_t nonzero(Wide x) {
#if JAXGD_LANES == 16
  return _mm512_test_epi8_mask(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(x));
#elif JAXGD_LANES == 8
  const __m256i zero = _mm256_cmpeq_epi8(reinterpret_cast<__m256i>(x), _mm256_setzero_si256());
  return ~static_cast<uint32_t>(_mm256_movemask_epi8(zero));
#else
  uint64_t mask = 0;
  for (int i = 0; i < kWide; ++i) mask |= static_cast<uint64_t>(x[i] != 0) << i;
  return mask;
#endif
}

// Turns rows into numbers by tile, leaving out the inputs of bytes that are zero in all of a tile's examples: of five
// images of digits that is three in five. Two tiles are turned at a time, 8 rows each; what a tile has not is zero.
class Gathered {
 public:
  Gathered(const Examples& examples, int64_t width, int64_t block)
      : examples_(examples), width_(width), nothing_(zeros<uint8_t>(width)) {
    const int64_t tiles = (tiles_of(block) + 1) / 2 * 2;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      x_.push_back(zeros(width * Tile::kStride));
      list_.push_back(zeros<int32_t>(width));
      tiles_.push_back({x_.back().get(), list_.back().get(), 0});
    }
    rows_.resize(tiles * Tile::kStride);
    next_.resize(block);
  }

  ByTile inputs() const { return {tiles_.data()}; }

  // Rows which(at) … which(at + m − 1). The `next` ones after them are called into the cache meanwhile.
  template <typename Which>
  void fill(int64_t at, int64_t m, const Which& which, int64_t next) {
    const int64_t tiles = (tiles_of(m) + 1) / 2 * 2;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      tiles_[tile].count = 0;
      const int64_t first = first_of(tile, m), size = std::min(first_of(tile + 1, m), m) - first;
      for (int64_t e = 0; e < Tile::kStride; ++e) {
        rows_[tile * Tile::kStride + e] = e < size ? examples_.bytes + which(at + first + e) * width_ : nothing_.get();
      }
    }
    for (int64_t e = 0; e < next; ++e) next_[e] = examples_.bytes + which(at + m + e) * width_;
    for (int64_t start = 0; start < width_; start += kWide) {
      if (start % 64 == 0) {
        for (int64_t e = 0; e < next; ++e) __builtin_prefetch(next_[e] + start, 0, 2);
      }
      for (int64_t tile = 0; tile < tiles; tile += 2) {
        turn_some(rows_.data() + tile * Tile::kStride, start, std::min<int64_t>(kWide, width_ - start), tile);
      }
    }
  }

 private:
  // Bytes start to start + size of two tiles' rows.
  void turn_some(const uint8_t* const* from, int64_t start, int64_t size, int64_t tile) {
    Wide rows[16];
    if (size == kWide) {
#pragma GCC unroll 16
      for (int e = 0; e < 16; ++e) std::memcpy(&rows[e], from[e] + start, kWide);
    } else {
      for (int e = 0; e < 16; ++e) {
        rows[e] = Wide{};
        std::memcpy(&rows[e], from[e] + start, size);
      }
    }
    Wide any[2] = {rows[0], rows[8]};
#pragma GCC unroll 7
    for (int e = 1; e < 8; ++e) any[0] |= rows[e], any[1] |= rows[8 + e];
    turn(rows);
    // Those of input start + 16 j + i lie from turned[i * kWide + 16 j] on.
    uint8_t turned[16 * kWide];
#pragma GCC unroll 16
    for (int e = 0; e < 16; ++e) std::memcpy(turned + e * kWide, &rows[e], kWide);
    collect(tiles_[tile], start, turned, nonzero(any[0]));
    collect(tiles_[tile + 1], start, turned + 8, nonzero(any[1]));
  }

  // Makes numbers of what was turned of a tile's wanted inputs.
  static void collect(Tile& tile, int64_t start, const uint8_t* turned, uint64_t wanted) {
    int32_t* list = tile.list;
    float* x = tile.x;
    int64_t count = tile.count;
    for (; wanted != 0; wanted &= wanted - 1, ++count) {
      const int64_t c = __builtin_ctzll(wanted);
      store_eight(x + count * Tile::kStride, turned + c % 16 * kWide + c / 16 * 16);
      list[count] = static_cast<int32_t>(start + c);
    }
    tile.count = count;
  }

  const Examples& examples_;
  const int64_t width_;
  std::vector<Floats> x_;
  std::vector<Array<int32_t>> list_;
  std::vector<Tile> tiles_;
  Array<uint8_t> nothing_;
  std::vector<const uint8_t*> rows_, next_;
};

}  // namespace
}  // namespace jaxgd::JAXGD_MACHINE
