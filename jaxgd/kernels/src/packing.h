// Packs a block of examples from rows of bytes into tiles of floats. An input that is zero in all examples of a tile is
// left out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "descent.h"
#include "products.h"
#include "vectors.h"

namespace jaxgd::JAXGD_ISA {
namespace {

// The number of bytes in a vector. `transpose` takes 16 vectors and transposes blocks of 16 × 16 bytes.
constexpr int64_t kBytes = 4 * kLanes;
using Bytes = uint8_t __attribute__((vector_size(4 * JAXGD_LANES)));

// Interleaves the first 8 bytes (Half = 0) or the last 8 bytes (Half = 1) of each group of 16 bytes of a and b.
template <int Half, int... I>
inline Bytes interleave(Bytes a, Bytes b, std::integer_sequence<int, I...> /*indices*/) {
  return __builtin_shufflevector(a, b, (I / 16 * 16 + Half * 8 + I % 16 / 2 + I % 2 * static_cast<int>(kBytes))...);
}

// Transposes each group of 16 bytes: byte j of rows[i] becomes byte i of rows[j]. Four rounds of interleaving row i
// with row i + 8 do this.
inline void transpose(Bytes (&rows)[16]) {
  constexpr auto kIndices = std::make_integer_sequence<int, kBytes>{};
#pragma GCC unroll 4
  for (int round = 0; round < 4; ++round) {
    Bytes interleaved[16];
#pragma GCC unroll 8
    for (int64_t i = 0; i < 8; ++i) {
      interleaved[2 * i] = interleave<0>(rows[i], rows[i + 8], kIndices);
      interleaved[2 * i + 1] = interleave<1>(rows[i], rows[i + 8], kIndices);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) rows[i] = interleaved[i];
  }
}

// Returns a mask with bit i set if byte i of x is not zero.
inline uint64_t nonzero(Bytes x) {
#if JAXGD_LANES == 16
  return _mm512_test_epi8_mask(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(x));
#elif JAXGD_LANES == 8
  const __m256i zero = _mm256_cmpeq_epi8(reinterpret_cast<__m256i>(x), _mm256_setzero_si256());
  return ~static_cast<uint32_t>(_mm256_movemask_epi8(zero));
#else
  uint64_t mask = 0;
  for (int i = 0; i < kBytes; ++i) mask |= static_cast<uint64_t>(x[i] != 0) << i;
  return mask;
#endif
}

// The inputs of a block of examples as floats, packed tile by tile. An input that is zero in all examples of a tile is
// left out. In a tile of five images of digits, these are three fifths of the inputs.
class PackedInputs {
 public:
  PackedInputs(const Examples& examples, int64_t width, int64_t block)
      : examples_(examples), width_(width), zero_row_(zeros<uint8_t>(width)) {
    const int64_t tiles = (tiles_of(block) + 1) / 2 * 2;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      x_.push_back(zeros(width * PackedTile::kStride));
      inputs_.push_back(zeros<int32_t>(width));
      tiles_.push_back({x_.back().get(), inputs_.back().get(), 0});
    }
    rows_.resize(tiles * PackedTile::kStride);
    prefetched_.resize(block);
  }

  Packed numbers() const { return {tiles_.data()}; }

  // Packs rows row_of(at) … row_of(at + m − 1), and prefetches the rows of the next `prefetch` examples. Two tiles of 8
  // rows are transposed at a time. Rows without an example are zero.
  template <typename RowOf>
  void pack(int64_t at, int64_t m, const RowOf& row_of, int64_t prefetch) {
    const int64_t tiles = (tiles_of(m) + 1) / 2 * 2;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      tiles_[tile].count = 0;
      const int64_t first = first_of(tile, m), size = std::min(first_of(tile + 1, m), m) - first;
      for (int64_t e = 0; e < PackedTile::kStride; ++e) {
        rows_[tile * PackedTile::kStride + e] =
            e < size ? examples_.bytes + row_of(at + first + e) * width_ : zero_row_.get();
      }
    }
    for (int64_t e = 0; e < prefetch; ++e) prefetched_[e] = examples_.bytes + row_of(at + m + e) * width_;
    for (int64_t start = 0; start < width_; start += kBytes) {
      if (start % 64 == 0) {
        for (int64_t e = 0; e < prefetch; ++e) __builtin_prefetch(prefetched_[e] + start, 0, 2);
      }
      for (int64_t tile = 0; tile < tiles; tile += 2) {
        pack_chunk(rows_.data() + tile * PackedTile::kStride, start, std::min(kBytes, width_ - start), tile);
      }
    }
  }

 private:
  // Packs the bytes start … start + size − 1 of the rows of two tiles.
  void pack_chunk(const uint8_t* const* from, int64_t start, int64_t size, int64_t tile) {
    Bytes rows[16];
    if (size == kBytes) {
#pragma GCC unroll 16
      for (int e = 0; e < 16; ++e) std::memcpy(&rows[e], from[e] + start, kBytes);
    } else {
      for (int e = 0; e < 16; ++e) {
        rows[e] = Bytes{};
        std::memcpy(&rows[e], from[e] + start, size);
      }
    }
    Bytes any[2] = {rows[0], rows[8]};
#pragma GCC unroll 7
    for (int e = 1; e < 8; ++e) {
      any[0] |= rows[e];
      any[1] |= rows[8 + e];
    }
    transpose(rows);
    // The bytes of input start + 16 j + i begin at transposed[i * kBytes + 16 j].
    uint8_t transposed[16 * kBytes];
#pragma GCC unroll 16
    for (int e = 0; e < 16; ++e) std::memcpy(transposed + e * kBytes, &rows[e], kBytes);
    append(tiles_[tile], start, transposed, nonzero(any[0]));
    append(tiles_[tile + 1], start, transposed + 8, nonzero(any[1]));
  }

  // Appends to a tile, as floats, the inputs whose bits are set in `wanted`.
  static void append(PackedTile& tile, int64_t start, const uint8_t* transposed, uint64_t wanted) {
    int32_t* rows = tile.rows;
    float* x = tile.x;
    int64_t count = tile.count;
    for (; wanted != 0; wanted &= wanted - 1) {
      const int64_t c = __builtin_ctzll(wanted);
      store_eight(x + count * PackedTile::kStride, transposed + c % 16 * kBytes + c / 16 * 16);
      rows[count] = static_cast<int32_t>(start + c);
      ++count;
    }
    tile.count = count;
  }

  const Examples& examples_;
  const int64_t width_;
  // The numbers of each tile, and the inputs that they belong to.
  std::vector<Floats> x_;
  std::vector<Array<int32_t>> inputs_;
  std::vector<PackedTile> tiles_;
  Array<uint8_t> zero_row_;
  std::vector<const uint8_t*> rows_, prefetched_;
};

}  // namespace
}  // namespace jaxgd::JAXGD_ISA
