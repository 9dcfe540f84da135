// Selects the kernels for an instruction set.
#include <string_view>

#include "descent.h"

namespace jaxgd {

const Kernels* kernels(std::string_view isa) {
  const auto requested = [&](const Kernels& candidate) { return isa.empty() || isa == candidate.name; };
#ifdef JAXGD_X86
  __builtin_cpu_init();
  static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  static const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (has_avx512 && requested(avx512::kKernels)) return &avx512::kKernels;
  if (has_avx2 && requested(avx2::kKernels)) return &avx2::kKernels;
#endif
  return requested(portable::kKernels) ? &portable::kKernels : nullptr;
}

}  // namespace jaxgd
