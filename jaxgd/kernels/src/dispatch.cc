// Selects the kernels for the instruction set of this processor.
#include <cstdlib>
#include <cstring>

#include "descent.h"

namespace jaxgd {

const Kernels& kernels() {
  static const Kernels& selected = []() -> const Kernels& {
    // Tests set this variable, so that one processor runs the kernels of every instruction set it has. An unknown name,
    // or one that the processor does not support, selects the portable kernels without a message.
    const char* requested = std::getenv("JAXGD_NATIVE_MACHINE");
    [[maybe_unused]] const auto allowed = [&](const char* name) {
      return requested == nullptr || std::strcmp(requested, name) == 0;
    };
#ifdef JAXGD_X86
    __builtin_cpu_init();
    const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (has_avx512 && allowed("avx512")) return avx512::kKernels;
    if (has_avx2 && allowed("avx2")) return avx2::kKernels;
#endif
    return portable::kKernels;
  }();
  return selected;
}

}  // namespace jaxgd
