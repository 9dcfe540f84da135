// Which of the kernels this machine can run.
#include <cstdlib>
#include <cstring>

#include "descent.h"

namespace jaxgd {

const Kernels& kernels() {
  static const Kernels& chosen = []() -> const Kernels& {
    // For tests, which have to see all of them on one machine.
    const char* asked = std::getenv("JAXGD_NATIVE_MACHINE");
    [[maybe_unused]] const auto wanted = [&](const char* name) {
      return asked == nullptr || std::strcmp(asked, name) == 0;
    };
#ifdef JAXGD_X86
    __builtin_cpu_init();
    const bool avx2_runs = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512_runs = avx2_runs && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (avx512_runs && wanted("avx512")) return avx512::kKernels;
    if (avx2_runs && wanted("avx2")) return avx2::kKernels;
#endif
    return portable::kKernels;
  }();
  return chosen;
}

}  // namespace jaxgd
