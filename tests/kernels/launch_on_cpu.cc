// An FFI handler for the CPU that calls `launch` of cuda.cc without a stream.
#include "cuda.cc"

namespace {
ffi::Error run_on_cpu(ffi::RemainingArgs args, ffi::RemainingRets rets, std::string_view name, int64_t batch_size,
                      int64_t threads, int64_t shared_bytes) {
  return jaxgd::cuda::launch(nullptr, args, rets, name, batch_size, threads, shared_bytes);
}
}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(launch_on_cpu, run_on_cpu, JAXGD_CUDA_EPOCH(ffi::Ffi::Bind()));
