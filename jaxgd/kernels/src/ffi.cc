// The functions that JAX and Python call. They check every shape and index; the kernels check none.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include "arguments.h"
#include "descent.h"

namespace jaxgd {
namespace {

// The number of processors that this process may use.
int threads() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

// A thread of a team must wait for the others once per mini-batch. It is worth its cost if it does at least this many
// multiply-adds in the first layer of a mini-batch: with 784 inputs and 32 neurons, a second thread gained time from 4
// examples per mini-batch on.
constexpr int64_t kMinMultiplyAdds = 50'000;
// The most threads that train one network.
constexpr int64_t kMaxTeam = 4;

// If other work uses the processors, threads that wait for one another lose more time than they gain. After a contended
// epoch, the next `backoff_epochs` epochs train each network with one thread. A contended epoch doubles the length of
// the following backoff; an epoch of several threads without contention halves it.
constexpr int kMinBackoff = 4, kMaxBackoff = 64;
std::atomic<int> backoff_epochs{0}, next_backoff{kMinBackoff};

void update_backoff(bool contended) {
  const int next = next_backoff;
  if (contended) backoff_epochs = next;
  next_backoff = std::clamp(contended ? 2 * next : next / 2, kMinBackoff, kMaxBackoff);
}

// Returns the number of threads that train one network, at most `most`.
int team_size(const std::vector<int64_t>& sizes, int64_t batch_size, int most) {
  if (sizes.size() < 3) return 1;
  const int64_t columns = padded(sizes[1]), able = std::min({int64_t{most}, columns / kPad, kMaxTeam});
  // Tests set this variable, so that several threads train small networks too, on any number of processors.
  if (const char* requested = std::getenv("JAXGD_NATIVE_TOGETHER")) {
    return static_cast<int>(std::clamp<int64_t>(std::atoi(requested), 1, columns / kPad));
  }
  if (backoff_epochs.load() > 0) {
    --backoff_epochs;
    return 1;
  }
  return static_cast<int>(std::clamp<int64_t>(batch_size * sizes[0] * columns / kMinMultiplyAdds, 1, able));
}

// Runs `work` on up to `count` threads at once. Rethrows an exception that one of them throws.
void on_threads(int64_t count, const std::function<void()>& work) {
  std::exception_ptr failure;
  std::mutex lock;
  const auto work_or_catch = [&] {
    try {
      work();
    } catch (...) {
      const std::lock_guard<std::mutex> held(lock);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  try {
    for (int64_t i = 1; i < std::min<int64_t>(count, threads()); ++i) others.emplace_back(work_or_catch);
  } catch (...) {
    // The system refused another thread; the threads already started do all the work.
  }
  work_or_catch();
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
}

// Runs f(0) … f(count − 1), several at a time. Rethrows an exception that one of them throws.
void in_parallel(int64_t count, const std::function<void(int64_t)>& f) {
  std::atomic<int64_t> next{0};
  on_threads(count, [&] {
    try {
      for (int64_t i; (i = next.fetch_add(1)) < count;) f(i);
    } catch (...) {
      next = count;
      throw;
    }
  });
}

// Returns the sizes of a network. Its weights and biases are args first, first + 1, …. Each has a leading axis of
// `batch` networks, unless batch is −1.
template <typename Buffers>
std::vector<int64_t> sizes_of(const Buffers& args, size_t first, int64_t batch) {
  require(args.size() >= first + 2 && (args.size() - first) % 2 == 0,
          "expected a weight and a bias for each layer, got " + std::to_string(args.size() - first) + " arrays");
  const size_t front = batch < 0 ? 0 : 1;
  std::vector<int64_t> sizes;
  for (size_t i = first; i < args.size(); i += 2) {
    const auto w = at(args, i), b = at(args, i + 1);
    require(w.dimensions().size() == front + 2, "a weight must be (out, in), got " + describe(w));
    const int64_t out = w.dimensions()[front], in = w.dimensions()[front + 1];
    if (sizes.empty()) sizes.push_back(in);
    require(out > 0 && in > 0 && in == sizes.back(),
            "a weight does not follow the previous layer: expected (out, " + std::to_string(sizes.back()) + "), got " +
                describe(w));
    std::vector<int64_t> of_w{out, in}, of_b{out};
    if (front == 1) of_w.insert(of_w.begin(), batch), of_b.insert(of_b.begin(), batch);
    require_shape("a weight", w, ffi::F32, of_w);
    require_shape("a bias", b, ffi::F32, of_b);
    sizes.push_back(out);
  }
  return sizes;
}

// Returns pointers to the weights and biases of the `index`-th network of a batch.
template <typename Pointers, typename Buffers>
Pointers layers(const Buffers& buffers, size_t first, const std::vector<int64_t>& sizes, int64_t index) {
  Pointers network;
  network.w.resize(sizes.size()), network.b.resize(sizes.size());
  for (size_t l = 1; l < sizes.size(); ++l) {
    const size_t i = first + 2 * (l - 1);
    network.w[l] = static_cast<float*>(at(buffers, i).untyped_data()) + index * sizes[l] * sizes[l - 1];
    network.b[l] = static_cast<float*>(at(buffers, i + 1).untyped_data()) + index * sizes[l];
  }
  return network;
}

// Returns the examples of args 0 and 1: x is (n, inputs), bytes or floats; y is labels (n) or targets (n, outputs).
Examples examples_of(const ffi::RemainingArgs& args, int64_t inputs, int64_t outputs) {
  Examples e;
  const auto x = at(args, 0), y = at(args, 1);
  require(y.dimensions().size() >= 1, "y must be labels (n) or targets (n, out)");
  e.n = y.dimensions()[0];
  require(e.n > 0, "expected at least one example, got none");
  if (x.element_type() == ffi::U8) {
    require_shape("x", x, ffi::U8, {e.n, inputs});
    e.bytes = x.typed_data<uint8_t>();
  } else {
    require_shape("x", x, ffi::F32, {e.n, inputs});
    e.floats = x.typed_data<float>();
  }
  if (y.element_type() == ffi::S32) {
    require_shape("y", y, ffi::S32, {e.n});
    e.labels = y.typed_data<int32_t>();
    int32_t low = 0, high = 0;
    for (int64_t r = 0; r < e.n; ++r) low = std::min(low, e.labels[r]), high = std::max(high, e.labels[r]);
    require(low >= 0 && high < outputs,
            "a label is below 0 or too large: expected 0 to " + std::to_string(outputs - 1) + " for " +
                std::to_string(outputs) + " outputs");
  } else {
    require_shape("y", y, ffi::F32, {e.n, outputs});
    e.targets = y.typed_data<float>();
  }
  return e;
}

Cost cost_named(std::string_view name) {
  if (name == "quadratic") return Cost::kQuadratic;
  require(name == "cross-entropy", "cost must be quadratic or cross-entropy, got " + std::string(name));
  return Cost::kCrossEntropy;
}

// args: x, y, order (n), eta (), decay (), then w and b of each layer.
// rets: finite () as an integer, 1 if the cost of every mini-batch was finite, then w and b of each layer.
// To train a batch of networks, give order, eta, decay, w, b and all results a leading axis.
ffi::Error Epoch(ffi::RemainingArgs args, ffi::RemainingRets rets, int64_t batch_size, std::string_view cost_name) {
  return guarded("epoch", [&] {
    const auto order = at(args, 2), eta = at(args, 3), decay = at(args, 4), finite = at(rets, 0);
    const Cost cost = cost_named(cost_name);
    const bool batched = order.dimensions().size() == 2;
    const int64_t networks = batched ? order.dimensions()[0] : 1;
    const std::vector<int64_t> sizes = sizes_of(args, 5, batched ? networks : -1);
    require(sizes == sizes_of(rets, 1, batched ? networks : -1), "the results must have the shapes of the network");
    const Examples examples = examples_of(args, sizes.front(), sizes.back());
    require(batch_size >= 1 && batch_size <= examples.n, "batch_size must be from 1 to the number of examples, " +
                                                             std::to_string(examples.n) + ", got " +
                                                             std::to_string(batch_size));
    const std::vector<int64_t> front = batched ? std::vector<int64_t>{networks} : std::vector<int64_t>{};
    std::vector<int64_t> of_order = front;
    of_order.push_back(examples.n);
    require_shape("order", order, ffi::S32, of_order);
    require_shape("eta", eta, ffi::F32, front);
    require_shape("decay", decay, ffi::F32, front);
    require_shape("finite", finite, ffi::S32, front);
    const int32_t* rows = order.typed_data<int32_t>();
    int32_t low = 0, high = 0;
    for (int64_t i = 0; i < networks * examples.n; ++i) low = std::min(low, rows[i]), high = std::max(high, rows[i]);
    require(low >= 0 && high < examples.n,
            "the order names an example outside 0 to " + std::to_string(examples.n - 1));
    const int team = team_size(sizes, batch_size, threads() / static_cast<int>(std::min<int64_t>(networks, threads())));
    in_parallel(networks, [&](int64_t i) {
      const EpochResult result =
          kernels().epoch(sizes, examples, rows + i * examples.n, batch_size, cost, eta.typed_data<float>()[i],
                          decay.typed_data<float>()[i], layers<Layers>(args, 5, sizes, i),
                          layers<MutableLayers>(rets, 1, sizes, i), team);
      finite.typed_data<int32_t>()[i] = result.finite;
      if (team > 1) update_backoff(result.contended);
    });
  });
}

// args: x, y, then w and b of each layer.
// rets: C (), the accuracy (), saturated () as an integer, 1 if every output is within the machine epsilon of 0 or 1,
// then optionally the outputs (n, out), then optionally ∂C/∂w and ∂C/∂b of each layer.
ffi::Error Evaluate(ffi::RemainingArgs args, ffi::RemainingRets rets, std::string_view cost_name) {
  return guarded("evaluate", [&] {
    const Cost cost = cost_named(cost_name);
    const std::vector<int64_t> sizes = sizes_of(args, 2, -1);
    const Examples examples = examples_of(args, sizes.front(), sizes.back());
    const auto c = at(rets, 0), accuracy = at(rets, 1), saturated = at(rets, 2);
    require_shape("C", c, ffi::F32, {});
    require_shape("the accuracy", accuracy, ffi::F32, {});
    require_shape("saturated", saturated, ffi::S32, {});
    // The gradient has an even number of arrays, so an even number of results includes the outputs.
    const bool with_outputs = rets.size() % 2 == 0;
    const size_t slopes = with_outputs ? 4 : 3;
    const bool with_gradient = rets.size() > slopes;
    if (with_gradient) require(sizes == sizes_of(rets, slopes, -1), "the results must have the shapes of the network");
    if (with_outputs) require_shape("the outputs", at(rets, 3), ffi::F32, {examples.n, sizes.back()});
    const Layers network = layers<Layers>(args, 2, sizes, 0);
    // The number of parts does not depend on the number of threads, so neither do the bits of the result. Every part
    // needs memory and time for a sum of its own, so the number is limited.
    const int64_t parts = std::clamp<int64_t>(examples.n / 2500, 1, 16);
    std::vector<Evaluation> results(parts);
    std::vector<Gradient> gradients(with_gradient ? parts : 0);
    std::atomic<int64_t> next{0};
    on_threads(parts, [&] {
      kernels().evaluate(sizes, examples, cost, network, parts, next, results.data(),
                         with_gradient ? gradients.data() : nullptr,
                         with_outputs ? at(rets, 3).typed_data<float>() : nullptr);
    });
    Evaluation total;
    for (const Evaluation& result : results) {
      total.cost += result.cost, total.right += result.right, total.saturated &= result.saturated;
    }
    *c.typed_data<float>() = static_cast<float>(total.cost / examples.n);
    *accuracy.typed_data<float>() = static_cast<float>(total.right) / static_cast<float>(examples.n);
    *saturated.typed_data<int32_t>() = total.saturated;
    if (!with_gradient) return;
    for (size_t l = 1; l < sizes.size(); ++l) {
      const int64_t rows = sizes[l], columns = sizes[l - 1], p = padded(rows);
      const size_t slot = slopes + 2 * (l - 1);
      float *w = at(rets, slot).typed_data<float>(), *b = at(rets, slot + 1).typed_data<float>();
      Gradient& sum = gradients[0];
      for (int64_t part = 1; part < parts; ++part) {
        for (int64_t i = 0; i < columns * p; ++i) sum.w[l][i] += gradients[part].w[l][i];
        for (int64_t i = 0; i < p; ++i) sum.b[l][i] += gradients[part].b[l][i];
      }
      // The sums are stored in panels. Write them in the caller's layout, one row per neuron.
      for (int64_t o = 0; o < rows; ++o) {
        for (int64_t i = 0; i < columns; ++i) {
          const int64_t index = panel_index(columns, p, kernels().panel, i, o);
          w[o * columns + i] = static_cast<float>(sum.w[l][index] / examples.n);
        }
        b[o] = static_cast<float>(sum.b[l][o] / examples.n);
      }
    }
  });
}

}  // namespace
}  // namespace jaxgd

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    jaxgd_epoch, jaxgd::Epoch,
    ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attr<int64_t>("batch_size").Attr<std::string_view>("cost"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxgd_evaluate, jaxgd::Evaluate,
                              ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attr<std::string_view>("cost"));

extern "C" {

// The name of the instruction set of the kernels.
const char* jaxgd_isa() { return jaxgd::kernels().name; }

// The number of processors that the kernels may use.
int jaxgd_threads() { return jaxgd::threads(); }
}
