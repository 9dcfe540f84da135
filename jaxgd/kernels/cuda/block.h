// The operations that a kernel needs from a block of threads, on a GPU of compute capability 9.0 or later.
//
// NVRTC compiles this file without any other header, so the integer types are defined here.
#pragma once

#ifdef __CUDACC_RTC__
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using int32_t = int;
using uint32_t = unsigned int;
using int64_t = long long;
using uint64_t = unsigned long long;
#else
#include <cstdint>
#endif

#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 1)
#define DEVICE __device__ __forceinline__

DEVICE int thread_index() { return threadIdx.x; }
DEVICE int block_index() { return blockIdx.x; }
DEVICE void barrier() { __syncthreads(); }
DEVICE void warp_barrier() { __syncwarp(); }

// An array in shared memory. The tests' emulation of this file checks every index and every read.
template <typename T, int N>
struct Array {
  T values[N];
  DEVICE T& operator[](int i) { return values[i]; }
  // Returns the address of the `count` values from index i on.
  DEVICE T* span(int i, [[maybe_unused]] int count) { return values + i; }
};

// Returns bytes i and i + 1 as one number of 16 bits, with byte i in the low half. i must be even.
template <int N>
DEVICE uint32_t two_bytes(Array<uint8_t, N>& bytes, int i) {
  return *reinterpret_cast<const uint16_t*>(bytes.span(i, 2));
}

// Returns the dynamic shared memory of the block.
template <typename S>
DEVICE S& shared() {
  extern __shared__ __align__(128) unsigned char memory[];
  return *reinterpret_cast<S*>(memory);
}

// Returns the x of the lane whose number is this lane's number xor the mask.
DEVICE float from_lane_xor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }

DEVICE uint32_t bits(float x) { return __float_as_uint(x); }
DEVICE float of_bits(uint32_t x) { return __uint_as_float(x); }
DEVICE float fused(float a, float b, float c) { return fmaf(a, b, c); }
DEVICE float fast_exp(float x) { return __expf(x); }
DEVICE float fast_reciprocal(float x) { return __fdividef(1.0f, x); }

// d += a b on the tensor core, (16, 8) += (16, 8) (8, 8). The tensor core ignores the low 13 bits of every number
// in a and b.
DEVICE void multiply_add(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Counts the bytes that asynchronous copies have written. A phase ends when its last expected byte arrives.
using Arrivals = uint64_t;

DEVICE uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

DEVICE void arrivals_init(Arrivals* arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(arrivals)) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
DEVICE void arrivals_expect(Arrivals* arrivals, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(arrivals)), "r"(bytes)
               : "memory");
}
// Waits until the phase of this parity has ended.
DEVICE void arrivals_wait(Arrivals* arrivals, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@ended bra done;\n"
      "bra again;\n"
      "done:\n"
      "}" ::"r"(shared_address(arrivals)),
      "r"(parity)
      : "memory");
}
// Lets later copies of this thread overwrite shared memory that threads have read before the latest barrier. A barrier
// alone does not suffice, because these copies use the async proxy of PTX.
DEVICE void fence_before_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Starts a copy from global to shared memory. The addresses and the number of bytes are multiples of 16.
DEVICE void bulk_copy(void* to, const void* from, int bytes, Arrivals* arrivals) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(arrivals))
               : "memory");
}
