// Vectors of JAXGD_LANES floats, the sigmoid of one, and memory for them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace jaxgd::JAXGD_MACHINE {
namespace {

constexpr int kLanes = JAXGD_LANES;
typedef float Vector __attribute__((vector_size(4 * JAXGD_LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * JAXGD_LANES)));
// As it lies in memory.
typedef float Unaligned __attribute__((vector_size(4 * JAXGD_LANES), aligned(4), may_alias));

inline Vector load(const float* x) { return *reinterpret_cast<const Unaligned*>(x); }
inline void store(float* x, Vector v) { *reinterpret_cast<Unaligned*>(x) = v; }
inline Vector all(float x) { return x - Vector{}; }
// 8 bytes x as x/255.
inline void store_eight(float* to, const uint8_t* x) {
#if JAXGD_LANES >= 8
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(x));
  _mm256_storeu_ps(to, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)) * _mm256_set1_ps(1.0f / 255.0f));
#else
  for (int i = 0; i < 8; ++i) to[i] = static_cast<float>(x[i]) * (1.0f / 255.0f);
#endif
}

inline Integers lanes() {
  Integers lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return lane;
}
// The first n lanes, and 0 in the others.
inline Vector first(Vector v, int64_t n) {
  return n >= kLanes ? v : lanes() < static_cast<int32_t>(n) ? v : Vector{};
}
// 1 in lane i, if there is one, and 0 in the others.
inline Vector unit(int64_t i) { return lanes() == static_cast<int32_t>(i) ? all(1.0f) : Vector{}; }

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
template <typename T>
using Array = std::unique_ptr<T[], Free>;
using Floats = Array<float>;

// Zeros, on a cache line's boundary.
template <typename T = float>
Array<T> zeros(int64_t n) {
  const size_t bytes = (static_cast<size_t>(std::max<int64_t>(n, 1)) * sizeof(T) + 63) / 64 * 64;
  void* x = std::aligned_alloc(64, bytes);
  if (x == nullptr) throw std::bad_alloc();
  std::memset(x, 0, bytes);
  return Array<T>(static_cast<T*>(x));
}

}  // namespace
}  // namespace jaxgd::JAXGD_MACHINE
