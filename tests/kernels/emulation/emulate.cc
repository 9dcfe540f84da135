// The kernel as a library for tests: the same source, on the CPU.
#include <cstdint>

// descend.cu includes <block.h>. The include path finds the block.h of this folder before the one for the GPU.
#include "block.h"
#include "descend.cu"

// Runs the kernel on `networks` blocks, one after the other. See block::run for `seed` and `truncate`.
extern "C" void jaxgd_emulate(const uint8_t* x, const int32_t* labels, const float* targets, const int32_t* orders,
                              const float* etas, float* w1, float* b1, float* w2, float* b2, int32_t* finite, int n,
                              int batch_size, int networks, unsigned seed, int truncate) {
  for (int i = 0; i < networks; ++i) {
    block::run(i, kThreadsOfKernel, sizeof(Shared), seed, truncate != 0,
               [=] { jaxgd_descend(x, labels, targets, orders, etas, w1, b1, w2, b2, finite, n, batch_size); });
  }
}
