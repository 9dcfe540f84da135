// The handler of the CUDA kernel on the platform "cpu": the same checks of the arguments, then the emulation.
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "cuda_epoch.h"

namespace jaxgd::cuda {
namespace {

// jaxgd_emulate in emulate.cc, compiled for a shape.
using Emulate = void (*)(const uint8_t* x, const int32_t* labels, const float* targets, const int32_t* orders,
                         const float* etas, float* w1, float* b1, float* w2, float* b2, int32_t* finite, int n,
                         int batch_size, int networks, unsigned seed, int truncate);

struct Kernel {
  Emulate emulate;
  Sizes sizes;
  int64_t threads, shared_bytes;
};

std::map<std::string, Kernel, std::less<>> kernels;
// The emulation can run only one block at a time, but XLA may run two handlers at once.
std::mutex lock;

ffi::Error run(ffi::RemainingArgs args, ffi::RemainingRets rets, std::string_view name, int64_t batch_size,
               int64_t threads, int64_t shared_bytes) {
  return guarded("emulated cuda epoch", [&] {
    const Epoch e = checked(args, rets, batch_size);
    const std::scoped_lock held(lock);
    const auto found = kernels.find(name);
    require(found != kernels.end(), "the kernel ", name, " is not loaded");
    const Kernel& kernel = found->second;
    require_same(e, kernel.sizes);
    require(threads == kernel.threads && shared_bytes == kernel.shared_bytes,
            "the launch has other threads or shared_bytes than the kernel");
    kernel.emulate(e.x, e.labels, e.targets, e.order, e.eta, e.w1, e.b1, e.w2, e.b2, e.finite, e.n, e.batch_size,
                   static_cast<int>(e.networks), 1, 0);
  });
}

}  // namespace
}  // namespace jaxgd::cuda

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxgd_emulated_epoch, jaxgd::cuda::run, JAXGD_CUDA_EPOCH(ffi::Ffi::Bind()));

extern "C" void jaxgd_emulated_register(const char* name, jaxgd::cuda::Emulate emulate, int64_t inputs, int64_t hidden,
                                        int64_t outputs, int64_t batch_size, int64_t threads, int64_t shared_bytes) {
  const std::scoped_lock held(jaxgd::cuda::lock);
  jaxgd::cuda::kernels[name] = {emulate, {inputs, hidden, outputs, batch_size}, threads, shared_bytes};
}
