// The operations of jaxgd/kernels/cuda/block.h on a CPU. Each thread of the block is a fiber, which runs until it waits
// for other threads or for a copy. The kernel's source is the same as on a GPU.
//
// A fault that the emulation finds ends the program with a message that names the line of the kernel. Examples are an
// index outside an array in shared memory, a read before the first write or during a copy, and a wait that never ends.
//
// block.cc implements the threads, barriers and copies. It is compiled without -fsanitize=thread, so ThreadSanitizer
// sees the kernel's own reads and writes, and the order that block.cc reports for barriers and copies.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define KERNEL(threads)                            \
  inline constexpr int kThreadsOfKernel = threads; \
  inline void
#define DEVICE inline

using std::min;

namespace block {

// Runs a block: `body` once in every thread. The seed sets the delays of the copies; a seed other than 0 also shuffles
// the order of the threads. With `truncate`, the tensor core rounds its sums toward 0.
void run(int index, int threads, size_t shared_bytes, unsigned seed, bool truncate, const std::function<void()>& body);

char* shared_memory();
// Ends the program unless all these bytes of shared memory were written.
void require_written(const void* from, size_t bytes, int line);
void mark_written(const void* to, size_t bytes);
[[noreturn]] void fail(int line, const char* fault);

// An index, and the line of the kernel that uses it.
struct Index {
  int i, line;
  Index(int i, int line = __builtin_LINE()) : i(i), line(line) {}
};

// A reference to a value in shared memory, which checks every read and records every write.
template <typename T>
class Value {
 public:
  Value(T* at, int line) : at_(at), line_(line) {}
  operator T() const {
    require_written(at_, sizeof(T), line_);
    return *at_;
  }
  void operator=(T value) const {
    *at_ = value;
    mark_written(at_, sizeof(T));
  }
  void operator=(const Value& other) const { *this = static_cast<T>(other); }
  void operator+=(T value) const { *this = static_cast<T>(*this) + value; }

 private:
  T* at_;
  int line_;
};

}  // namespace block

template <typename T, int N>
struct Array {
  T values[N];
  block::Value<T> operator[](block::Index index) { return {span(index, 1), index.line}; }
  T* span(block::Index index, int count) {
    if (index.i < 0 || count > N - index.i) block::fail(index.line, "an index is outside its array in shared memory");
    return values + index.i;
  }
};

template <int N>
uint32_t two_bytes(Array<uint8_t, N>& bytes, block::Index index) {
  const uint8_t* pair = bytes.span(index, 2);
  if (index.i % 2 != 0) block::fail(index.line, "two_bytes needs an even index");
  block::require_written(pair, 2, index.line);
  return pair[0] | pair[1] << 8;
}

template <typename S>
S& shared() {
  return *reinterpret_cast<S*>(block::shared_memory());
}

int thread_index();
int block_index();
void barrier(int line = __builtin_LINE());
void warp_barrier(int line = __builtin_LINE());
float from_lane_xor(float x, int mask, int line = __builtin_LINE());
void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], int line = __builtin_LINE());

inline uint32_t bits(float x) {
  uint32_t word;
  std::memcpy(&word, &x, 4);
  return word;
}
inline float of_bits(uint32_t word) {
  float x;
  std::memcpy(&x, &word, 4);
  return x;
}
inline float fused(float a, float b, float c) { return std::fma(a, b, c); }
// As on a GPU, exp(x) is computed as a power of 2. For a large x, the rounding of the product causes most of the error.
inline float fast_exp(float x) { return std::exp2(x * 1.44269504f); }
inline float fast_reciprocal(float x) { return 1.0f / x; }

struct Arrivals {
  uint64_t number;  // an index of `phases` in block.cc
};
void arrivals_init(Arrivals* arrivals);
void arrivals_expect(Arrivals* arrivals, int bytes, int line = __builtin_LINE());
void arrivals_wait(Arrivals* arrivals, int parity, int line = __builtin_LINE());
void fence_before_copies();
void bulk_copy(void* to, const void* from, int bytes, Arrivals* arrivals, int line = __builtin_LINE());
