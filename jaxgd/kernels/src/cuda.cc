// Launches the CUDA kernel. This file needs no header and no library of CUDA: it finds the driver's functions by name
// at the first launch. Python loads the kernels (driver.py) before that, because a load can fail while XLA captures
// a CUDA graph.
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#ifdef __linux__
#include <dlfcn.h>
#endif

#include "arguments.h"
#include "cuda_epoch.h"

namespace jaxgd::cuda {
namespace {

// The two functions of the driver that a launch needs, or the reason why they are missing.
struct Driver {
  int (*launch_kernel)(void* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                       unsigned block_y, unsigned block_z, unsigned shared_bytes, void* stream, void** parameters,
                       void** extra) = nullptr;
  int (*get_error_string)(int code, const char** text) = nullptr;
  std::string missing;

  Driver() {
#ifdef __linux__
    void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      // Each thread has a dlerror of its own. NOLINTNEXTLINE(concurrency-mt-unsafe)
      missing = joined("the CUDA driver cannot be loaded: ", dlerror());
      return;
    }
    launch_kernel = reinterpret_cast<decltype(launch_kernel)>(dlsym(library, "cuLaunchKernel"));
    get_error_string = reinterpret_cast<decltype(get_error_string)>(dlsym(library, "cuGetErrorString"));
    if (launch_kernel == nullptr || get_error_string == nullptr) missing = "the CUDA driver has no cuLaunchKernel";
#else
    missing = "the kernel needs Linux";
#endif
  }

  std::string text(int code) const {
    const char* text = nullptr;
    const bool known = get_error_string(code, &text) == 0 && text != nullptr;
    return joined(known ? text : "unknown error", ", error ", code);
  }
};

// A kernel that Python has loaded. It is valid on every device of its architecture. Its name is a hash that includes
// the architecture.
struct Kernel {
  void* handle;
  Sizes sizes;
};

std::mutex lock;

std::map<std::string, Kernel, std::less<>>& kernels() {
  static std::map<std::string, Kernel, std::less<>> loaded;
  return loaded;
}

Kernel kernel_of(std::string_view name) {
  const std::scoped_lock held(lock);
  const auto entry = kernels().find(name);
  if (entry != kernels().end()) return entry->second;
  throw Refused(ffi::ErrorCode::kFailedPrecondition,
                joined("the kernel ", name.substr(0, 12),
                       " is not loaded in this process. A compiled or exported program holds only its name. Before "
                       "running one, call jaxgd.kernels.cuda.backend.load(sizes, batch_size, precision) with the same "
                       "jaxgd, NVRTC and kind of GPU"));
}

// See `checked` for the arguments and results. One block trains one network.
ffi::Error launch(void* stream, ffi::RemainingArgs args, ffi::RemainingRets rets, std::string_view name,
                  int64_t batch_size, int64_t threads, int64_t shared_bytes) {
  return guarded("cuda epoch", [&] {
    Epoch e = checked(args, rets, batch_size);
    const Kernel kernel = kernel_of(name);
    require_same(e, kernel.sizes);
    static const Driver driver;
    if (!driver.missing.empty()) throw Refused(ffi::ErrorCode::kUnavailable, driver.missing);
    if (e.networks == 0) return;
    void* parameters[] = {&e.x,  &e.labels, &e.targets, &e.order,  &e.eta, &e.w1,
                          &e.b1, &e.w2,     &e.b2,      &e.finite, &e.n,   &e.batch_size};
    const int code =
        driver.launch_kernel(kernel.handle, static_cast<unsigned>(e.networks), 1, 1, static_cast<unsigned>(threads), 1,
                             1, static_cast<unsigned>(shared_bytes), stream, parameters, nullptr);
    if (code != 0) {
      throw Refused(ffi::ErrorCode::kInternal,
                    joined("the driver refused to launch ", e.networks, " blocks of ", threads, " threads with ",
                           shared_bytes, " bytes of shared memory: ", driver.text(code)));
    }
  });
}

}  // namespace
}  // namespace jaxgd::cuda

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxgd_cuda_epoch, jaxgd::cuda::launch,
                              JAXGD_CUDA_EPOCH(ffi::Ffi::Bind().Ctx<ffi::PlatformStream<void*>>()),
                              // XLA may record the launch in a CUDA graph.
                              {ffi::Traits::kCmdBufferCompatible});

extern "C" {

// Registers a loaded kernel, a CUkernel, under its name.
void jaxgd_cuda_register(const char* name, void* handle, int64_t inputs, int64_t hidden, int64_t outputs,
                         int64_t batch_size) {
  const std::scoped_lock held(jaxgd::cuda::lock);
  jaxgd::cuda::kernels()[name] = {handle, {inputs, hidden, outputs, batch_size}};
}
}
