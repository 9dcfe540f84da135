// The inputs of a mini-batch, gathered from whole rows of bytes or floats.
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

// Byte j of rows[i] becomes byte i of rows[j], in each 16 bytes: four times the rows are zipped with those 8 further on.
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

// Turns rows into numbers that lie input by input, leaving out the inputs of bytes that are zero in all of them: of ten
// images of digits that is half.
class Gathered {
 public:
  Gathered(const Examples& examples, int64_t width, int64_t block)
      : examples_(examples), width_(width), stride_((block + 15) / 16 * 16), x_(zeros(width * stride_)),
        list_(zeros<int32_t>(width)), turned_(zeros<uint8_t>(stride_ * kWide)), nothing_(zeros<uint8_t>(width)),
        rows_(2 * stride_), count_(width) {
    for (int64_t k = 0; k < width; ++k) list_[k] = static_cast<int32_t>(k);
  }

  Inputs inputs() const { return {x_.get(), stride_, list_.get(), count_}; }

  // Rows which(0) … which(m − 1). The `next` ones after them are called into the cache meanwhile.
  template <typename Which>
  void fill(int64_t m, const Which& which, int64_t next) {
    if (examples_.bytes != nullptr) {
      for (int64_t e = 0; e < stride_; ++e) {
        rows_[e] = e < m ? examples_.bytes + which(e) * width_ : nothing_.get();
        rows_[stride_ + e] = e < next ? examples_.bytes + which(m + e) * width_ : nothing_.get();
      }
      count_ = 0;
      for (int64_t start = 0; start < width_; start += kWide) {
        for (int64_t e = 0; e < next; ++e) __builtin_prefetch(rows_[stride_ + e] + start, 0, 2);
        const int64_t size = std::min<int64_t>(kWide, width_ - start);
        uint64_t wanted = 0;
        for (int64_t e = 0; e < stride_; e += 16) {
          wanted |= turn_some(rows_.data() + e, start, size, turned_.get() + e * kWide);
        }
        count_ = stride_ == 16 ? collect<true>(start, wanted) : collect<false>(start, wanted);
      }
    } else {
      for (int64_t e = 0; e < m; ++e) {
        const float* row = examples_.floats + which(e) * width_;
        for (int64_t k = 0; k < width_; ++k) x_[k * stride_ + e] = row[k];
      }
    }
  }

 private:
  // Bytes start to start + size of 16 rows, turned: those of input start + 16 j + i lie from to[i * kWide + 16 j] on.
  // Returns which of these inputs any row has, one bit each.
  static uint64_t turn_some(const uint8_t* const* from, int64_t start, int64_t size, uint8_t* to) {
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
    Wide any = rows[0];
#pragma GCC unroll 15
    for (int e = 1; e < 16; ++e) any |= rows[e];
    turn(rows);
#pragma GCC unroll 16
    for (int e = 0; e < 16; ++e) std::memcpy(to + e * kWide, &rows[e], kWide);
    return nonzero(any);
  }

  // Makes numbers of what was turned of the wanted inputs, of 16 examples at a time. Returns how many inputs there are.
  template <bool kOneGroup>
  int64_t collect(int64_t start, uint64_t wanted) const {
    const int64_t stride = kOneGroup ? 16 : stride_;
    const uint8_t* turned = turned_.get();
    int32_t* list = list_.get();
    float* x = x_.get();
    int64_t count = count_;
    for (; wanted != 0; wanted &= wanted - 1, ++count) {
      const int64_t c = __builtin_ctzll(wanted);
      for (int64_t e = 0; e < stride; e += 16) {
        const uint8_t* bytes = turned + (e + c % 16) * kWide + c / 16 * 16;
        for (int i = 0; i < 16; i += kLanes) {
          store(x + count * stride + e + i, load_bytes(bytes + i) * all(1.0f / 255.0f));
        }
      }
      list[count] = static_cast<int32_t>(start + c);
    }
    return count;
  }

  const Examples& examples_;
  const int64_t width_, stride_;
  Floats x_;
  Array<int32_t> list_;
  Array<uint8_t> turned_, nothing_;
  std::vector<const uint8_t*> rows_;
  int64_t count_;
};

}  // namespace
}  // namespace jaxgd::JAXGD_MACHINE
