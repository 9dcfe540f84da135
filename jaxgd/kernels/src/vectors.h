// SIMD vectors of JAXGD_LANES floats, the sigmoid function, the cross-entropy, and aligned memory.
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

namespace jaxgd::JAXGD_ISA {
namespace {

constexpr int64_t kLanes = JAXGD_LANES;
using Vector = float __attribute__((vector_size(4 * JAXGD_LANES)));
using Integers = int32_t __attribute__((vector_size(4 * JAXGD_LANES)));
// A vector in memory, where only the alignment of a float is guaranteed.
using Unaligned = float __attribute__((vector_size(4 * JAXGD_LANES), aligned(4), may_alias));

inline Vector load(const float* x) { return *reinterpret_cast<const Unaligned*>(x); }
inline void store(float* x, Vector v) { *reinterpret_cast<Unaligned*>(x) = v; }
inline Vector broadcast(float x) { return x - Vector{}; }
// The sum of the lanes, added from lane 0 to the last lane.
inline float total(Vector v) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}
// x → factor · x, for n numbers. n is a multiple of kLanes.
inline void scale(float* x, int64_t n, double factor) {
  const Vector f = broadcast(static_cast<float>(factor));
  for (int64_t i = 0; i < n; i += kLanes) store(x + i, load(x + i) * f);
}
// Writes x[0] … x[7] as floats, each multiplied by the float nearest to 1/255.
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
// Keeps the first n lanes of v and sets the others to 0.
inline Vector keep_first(Vector v, int64_t n) {
  if (n >= kLanes) return v;
  return lanes() < static_cast<int32_t>(n) ? v : Vector{};
}
// 1 in lane i and 0 in all others; all 0 if i is not the number of a lane.
inline Vector one_hot(int64_t i) { return lanes() == static_cast<int32_t>(i) ? broadcast(1.0f) : Vector{}; }

// exp(−|z|), with a relative error of about 1e-7; 0 from |z| ≈ 87.7 on. NaN stays NaN.
inline Vector exp_minus_abs(Vector z) {
  // The result is 2^k · exp(−r) with an integer k ≤ 0 and |r| ≤ ln 2 / 2. The limit 88.1 of |z| keeps k ≥ −127. For
  // k = −127, 2^k is stored as 0: exp(−|z|) is then below every normal float.
  Vector size = z < Vector{} ? -z : z;
  size = size > broadcast(88.1f) ? broadcast(88.1f) : size;
  // Adding and subtracting 1.5 · 2^23 rounds to an integer.
  const Vector magic = broadcast(12582912.0f);
  const Vector shifted = size * broadcast(-1.44269504088896340736f) + magic;
  const Integers k = reinterpret_cast<Integers>(shifted) - reinterpret_cast<Integers>(magic);
  // ln 2 is the sum of a float of 9 bits and a small float. The product of k and the first is exact.
  const Vector whole = shifted - magic;
  const Vector r = (size + whole * broadcast(0.693359375f)) + whole * broadcast(-2.12194440e-4f);
  // The Taylor series of exp(−r) up to r^7. Its remainder is below 6e-9 in absolute value.
  Vector p = broadcast(-1.0f / 5040);
  p = p * r + broadcast(1.0f / 720);
  p = p * r + broadcast(-1.0f / 120);
  p = p * r + broadcast(1.0f / 24);
  p = p * r + broadcast(-1.0f / 6);
  p = p * r + broadcast(0.5f);
  p = p * r + broadcast(-1.0f);
  p = p * r + broadcast(1.0f);
  return p * reinterpret_cast<Vector>((k + 127) << 23);
}

// σ(z), σ′(z) and σ(−z).
struct Sigmoid {
  Vector value, slope, complement;
};

// With e = exp(−|z|): σ(z) = 1/(1 + e) for z ≥ 0 and e/(1 + e) for z < 0, and σ′(z) = e/(1 + e)². The relative error is
// about 1e-7 up to |z| ≈ 87.7. Computed as σ(1 − σ), σ′ would be 0 from z ≈ 17 on, so that a neuron could never learn
// again. NaN stays NaN.
inline Sigmoid sigmoid(Vector z) {
  const Vector e = exp_minus_abs(z);
  const Vector inverse = broadcast(1.0f) / (broadcast(1.0f) + e), small = e * inverse;
  return {z < Vector{} ? small : inverse, small * inverse, z < Vector{} ? inverse : small};
}

// softplus(z) − y z with softplus(z) = log(1 + exp(z)) = max(z, 0) + log(1 + e) and e = exp(−|z|). For y from 0
// to 1, it is finite for every finite z, and its relative error is about 1e-7: no two large terms cancel.
inline Vector cross_entropy(Vector z, Vector y) {
  const Vector e = exp_minus_abs(z);
  // log(1 + e) = 2 artanh(s) with s = e/(2 + e) ≤ 1/3. The relative remainder of the series is below 2e-9.
  const Vector twice = broadcast(2.0f) / (broadcast(2.0f) + e), s = broadcast(0.5f) * twice * e, square = s * s;
  Vector p = broadcast(1.0f / 15);
  p = p * square + broadcast(1.0f / 13);
  p = p * square + broadcast(1.0f / 11);
  p = p * square + broadcast(1.0f / 9);
  p = p * square + broadcast(1.0f / 7);
  p = p * square + broadcast(1.0f / 5);
  p = p * square + broadcast(1.0f / 3);
  p = p * square + broadcast(1.0f);
  return (z > Vector{} ? (broadcast(1.0f) - y) * z : -y * z) + p * twice * e;
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};
template <typename T>
using Array = std::unique_ptr<T[], Free>;
using Floats = Array<float>;

// Allocates n zeros, aligned to a cache line of 64 bytes.
template <typename T = float>
Array<T> zeros(int64_t n) {
  const size_t bytes = (static_cast<size_t>(std::max<int64_t>(n, 1)) * sizeof(T) + 63) / 64 * 64;
  void* x = std::aligned_alloc(64, bytes);
  if (x == nullptr) throw std::bad_alloc();
  std::memset(x, 0, bytes);
  return Array<T>(static_cast<T*>(x));
}

}  // namespace
}  // namespace jaxgd::JAXGD_ISA
