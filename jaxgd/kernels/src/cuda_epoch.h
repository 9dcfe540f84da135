// The arrays of an epoch by the CUDA kernel, and their checks. The tests' emulation of the kernel uses this file too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <ostream>
#include <string_view>
#include <vector>

#include "arguments.h"

namespace jaxgd::cuda {

// The parameters of jaxgd_descend in descend.cu, and the sizes of their arrays.
struct Epoch {
  const uint8_t* x;
  const int32_t* labels;  // null if the examples have targets
  const float* targets;   // null if the examples have labels
  const int32_t* order;
  const float* eta;
  float *w1, *b1, *w2, *b2;  // updated in place
  int32_t* finite;
  int n, batch_size;
  int64_t networks, inputs, hidden, outputs;
};

// The sizes for which a kernel was compiled.
struct Sizes {
  int64_t inputs, hidden, outputs, batch_size;

  friend std::ostream& operator<<(std::ostream& out, const Sizes& sizes) {
    return out << "[" << sizes.inputs << "," << sizes.hidden << "," << sizes.outputs << "] with a batch size of "
               << sizes.batch_size;
  }
};

inline void require_same(const Epoch& e, const Sizes& compiled) {
  const Sizes given{e.inputs, e.hidden, e.outputs, e.batch_size};
  require(given.inputs == compiled.inputs && given.hidden == compiled.hidden && given.outputs == compiled.outputs &&
              given.batch_size <= compiled.batch_size,
          "the kernel was compiled for ", compiled, ", got ", given);
}

// args: x (n, inputs rounded up to a multiple of 16), bytes; y, labels (n) or targets (n, outputs); order (n); eta ();
// w1 (hidden, inputs), b1 (hidden), w2 (outputs, hidden), b2 (outputs).
// rets: finite () as an integer, w1, b1, w2, b2. The results w1, b1, w2 and b2 share memory with the arguments
// of the same names.
// To train a batch of networks, give order, eta, the network and all results a leading axis.
inline Epoch checked(const ffi::RemainingArgs& args, const ffi::RemainingRets& rets, int64_t batch_size) {
  require(args.size() == 8 && rets.size() == 5, "expected 8 arguments and 5 results, got ", args.size(), " and ",
          rets.size());
  const auto x = at(args, 0), y = at(args, 1), order = at(args, 2), eta = at(args, 3), w1 = at(args, 4);
  const auto w2 = at(args, 6);
  const bool batched = order.dimensions().size() == 2;
  const size_t front = batched ? 1 : 0;
  const auto in_batch = [&](std::vector<int64_t> shape) {
    if (batched) shape.insert(shape.begin(), order.dimensions()[0]);
    return shape;
  };
  require(y.dimensions().size() > 0, "y must be labels (n) or targets (n, out), got ", y);
  require(w1.dimensions().size() == front + 2, "w1 must be (hidden, in), got ", w1);
  require(w2.dimensions().size() == front + 2, "w2 must be (out, hidden), got ", w2);

  Epoch e{};
  e.networks = batched ? order.dimensions()[0] : 1;
  e.hidden = w1.dimensions()[front];
  e.inputs = w1.dimensions()[front + 1];
  e.outputs = w2.dimensions()[front];
  require(e.hidden > 0 && e.inputs > 0 && e.outputs > 0, "every layer must have a neuron and an input, got ", w1,
          " and ", w2);
  // The kernel counts in 32-bit integers, up to a few steps past the last. With this limit, no count overflows.
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max() - 128;
  const int64_t n = y.dimensions()[0];
  require(n > 0 && n <= kMost, "expected 1 to ", kMost, " examples, got ", n);
  require(e.networks <= kMost, "expected at most ", kMost, " networks, got ", e.networks);
  require(batch_size >= 1 && batch_size <= n, "batch_size must be from 1 to the number of examples, ", n, ", got ",
          batch_size);
  e.n = static_cast<int>(n);
  e.batch_size = static_cast<int>(batch_size);

  require_shape("x", x, ffi::U8, {n, (e.inputs + 15) / 16 * 16});
  require(reinterpret_cast<uintptr_t>(x.untyped_data()) % 16 == 0, "the address of x must be a multiple of 16");
  e.x = x.typed_data<uint8_t>();
  if (y.element_type() == ffi::S32) {
    require_shape("y", y, ffi::S32, {n});
    e.labels = y.typed_data<int32_t>();
  } else {
    require_shape("y", y, ffi::F32, {n, e.outputs});
    e.targets = y.typed_data<float>();
  }
  require_shape("order", order, ffi::S32, in_batch({n}));
  require_shape("eta", eta, ffi::F32, in_batch({}));
  require_shape("finite", at(rets, 0), ffi::S32, in_batch({}));
  e.order = order.typed_data<int32_t>();
  e.eta = eta.typed_data<float>();
  e.finite = at(rets, 0).typed_data<int32_t>();

  const std::vector<int64_t> shapes[] = {in_batch({e.hidden, e.inputs}), in_batch({e.hidden}),
                                         in_batch({e.outputs, e.hidden}), in_batch({e.outputs})};
  const char* names[] = {"w1", "b1", "w2", "b2"};
  const char* results[] = {"the result w1", "the result b1", "the result w2", "the result b2"};
  float** const pointers[] = {&e.w1, &e.b1, &e.w2, &e.b2};
  for (size_t i = 0; i < 4; ++i) {
    const auto before = at(args, 4 + i), after = at(rets, 1 + i);
    require_shape(names[i], before, ffi::F32, shapes[i]);
    require_shape(results[i], after, ffi::F32, shapes[i]);
    require(before.untyped_data() == after.untyped_data(), results[i],
            " must be in the memory of its argument: it is updated in place");
    *pointers[i] = after.typed_data<float>();
  }
  return e;
}

}  // namespace jaxgd::cuda

// Adds arguments, results and attributes to a binding. The handlers of the kernel and of its emulation share them.
// clang-format off
#define JAXGD_CUDA_EPOCH(binding)  \
  (binding).RemainingArgs().RemainingRets().Attr<std::string_view>("kernel").Attr<int64_t>("batch_size")  \
           .Attr<int64_t>("threads").Attr<int64_t>("shared_bytes")
// clang-format on
