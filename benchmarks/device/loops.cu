// Loops that measure two limits of the kernel's speed: matrix products on the tensor core, and barriers.
#ifndef CHAINS
#define CHAINS 8
#endif

// Every warp adds `count` matrix products to each of CHAINS accumulators.
extern "C" __global__ void products(float* out, int count) {
  float d[CHAINS][4];
#pragma unroll
  for (int k = 0; k < CHAINS; ++k)
    for (int i = 0; i < 4; ++i) d[k][i] = 0.0f;
  const unsigned a = __float_as_uint(1.0f + threadIdx.x), b = __float_as_uint(0.5f);
  for (int repeat = 0; repeat < count; ++repeat) {
#pragma unroll
    for (int k = 0; k < CHAINS; ++k) {
      asm volatile(
          "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%4,%4,%4}, {%5,%5}, {%0,%1,%2,%3};"
          : "+f"(d[k][0]), "+f"(d[k][1]), "+f"(d[k][2]), "+f"(d[k][3])
          : "r"(a), "r"(b));
    }
  }
  float sum = 0.0f;
#pragma unroll
  for (int k = 0; k < CHAINS; ++k)
    for (int i = 0; i < 4; ++i) sum += d[k][i];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

// The threads of a block meet at `count` barriers.
extern "C" __global__ void barriers(float* out, int count) {
  for (int repeat = 0; repeat < count; ++repeat) __syncthreads();
  out[blockIdx.x * blockDim.x + threadIdx.x] = static_cast<float>(count);
}
