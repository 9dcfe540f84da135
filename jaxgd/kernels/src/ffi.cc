// What JAX calls, and what Python calls to prepare it: every shape and index is checked here, and nowhere after.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

#include "descent.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace jaxgd {
namespace {

int threads() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

// The multiply-adds in a mini-batch's first layer that are worth a thread of their own, which has to meet the others
// once a mini-batch; and the most threads of one network. Two gained on 784 inputs and 32 neurons from 4 examples on.
constexpr int64_t kWorth = 50'000;
constexpr int64_t kMostTogether = 4;

// Where processors are not free, threads that wait for each other lose more than they gain. After an epoch that did,
// some go without: twice as many each time, and half as many again after each that went well.
constexpr int kLeastAlone = 4, kMostAlone = 64;
std::atomic<int> alone{0}, alone_next{kLeastAlone};

void remember(bool crowded) {
  const int next = alone_next;
  if (crowded) alone = next;
  alone_next = std::clamp(crowded ? 2 * next : next / 2, kLeastAlone, kMostAlone);
}

// How many of `most` threads teach one network.
int team_size(const std::vector<int64_t>& sizes, int64_t batch_size, int most) {
  if (sizes.size() < 3) return 1;
  const int64_t columns = padded(sizes[1]), able = std::min({int64_t{most}, columns / kPad, kMostTogether});
  // For tests, which have to see several also where they are not worth it, and not there.
  if (const char* asked = std::getenv("JAXGD_NATIVE_TOGETHER")) {
    return static_cast<int>(std::clamp<int64_t>(std::atoi(asked), 1, columns / kPad));
  }
  if (alone.load() > 0) {
    --alone;
    return 1;
  }
  return static_cast<int>(std::clamp<int64_t>(batch_size * sizes[0] * columns / kWorth, 1, able));
}

// f(0) … f(count − 1), several at once. What one of them throws is thrown here.
void in_parallel(int64_t count, const std::function<void(int64_t)>& f) {
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex lock;
  const auto work = [&] {
    try {
      for (int64_t i; (i = next.fetch_add(1)) < count;) f(i);
    } catch (...) {
      const std::lock_guard<std::mutex> held(lock);
      failure = std::current_exception();
      next = count;
    }
  };
  std::vector<std::thread> others;
  try {
    for (int64_t i = 1; i < std::min<int64_t>(count, threads()); ++i) others.emplace_back(work);
  } catch (...) {
    // No more threads are to be had: those there are do it.
  }
  work();
  for (std::thread& other : others) other.join();
  if (failure) std::rethrow_exception(failure);
}

struct Wrong {
  std::string what;
};

std::string shape_of(const ffi::AnyBuffer& x) {
  std::string text = "(";
  for (const int64_t d : x.dimensions()) text += std::to_string(d) + ",";
  return text + ")";
}

void require(bool holds, const std::string& what) {
  if (!holds) throw Wrong{what};
}

void require_shape(const std::string& name, const ffi::AnyBuffer& x, ffi::DataType type,
                   const std::vector<int64_t>& shape) {
  const auto dims = x.dimensions();
  const bool same = dims.size() == shape.size() && std::equal(dims.begin(), dims.end(), shape.begin());
  require(x.element_type() == type && same, name + " has another shape or dtype than it must: " + shape_of(x));
}

ffi::AnyBuffer at(const ffi::RemainingArgs& args, size_t i) {
  const auto x = args.get<ffi::AnyBuffer>(i);
  require(x.has_value(), "argument " + std::to_string(i) + " is missing");
  return *x;
}
ffi::AnyBuffer at(const ffi::RemainingRets& rets, size_t i) {
  auto x = rets.get<ffi::AnyBuffer>(i);
  require(x.has_value(), "result " + std::to_string(i) + " is missing");
  ffi::Result<ffi::AnyBuffer> found = *x;
  return *found;
}

// The sizes of a network whose weights and biases are args first, first + 1, …, each with `lanes` in front unless −1.
template <typename Buffers>
std::vector<int64_t> sizes_of(const Buffers& args, size_t first, int64_t lanes) {
  require(args.size() >= first + 2 && (args.size() - first) % 2 == 0, "weights and biases must come in pairs");
  const size_t front = lanes < 0 ? 0 : 1;
  std::vector<int64_t> sizes;
  for (size_t i = first; i < args.size(); i += 2) {
    const auto w = at(args, i), b = at(args, i + 1);
    require(w.dimensions().size() == front + 2, "a weight must be (out, in), got " + shape_of(w));
    const int64_t out = w.dimensions()[front], in = w.dimensions()[front + 1];
    if (sizes.empty()) sizes.push_back(in);
    require(out > 0 && in > 0 && in == sizes.back(), "a weight does not follow the one before: " + shape_of(w));
    std::vector<int64_t> of_w{out, in}, of_b{out};
    if (front == 1) of_w.insert(of_w.begin(), lanes), of_b.insert(of_b.begin(), lanes);
    require_shape("a weight", w, ffi::F32, of_w);
    require_shape("a bias", b, ffi::F32, of_b);
    sizes.push_back(out);
  }
  return sizes;
}

// Weights and biases of one lane.
template <typename Pointers, typename Buffers>
Pointers layers(const Buffers& buffers, size_t first, const std::vector<int64_t>& sizes, int64_t lane) {
  Pointers found;
  found.w.resize(sizes.size()), found.b.resize(sizes.size());
  for (size_t l = 1; l < sizes.size(); ++l) {
    const size_t i = first + 2 * (l - 1);
    found.w[l] = static_cast<float*>(at(buffers, i).untyped_data()) + lane * sizes[l] * sizes[l - 1];
    found.b[l] = static_cast<float*>(at(buffers, i + 1).untyped_data()) + lane * sizes[l];
  }
  return found;
}

// The examples of args 0 and 1: x (n, inputs), bytes or floats, and y.
Examples examples_of(const ffi::RemainingArgs& args, int64_t inputs, int64_t outputs) {
  Examples e;
  const auto x = at(args, 0), y = at(args, 1);
  require(y.dimensions().size() >= 1, "y must be labels (n) or targets (n, out)");
  e.n = y.dimensions()[0];
  require(e.n > 0, "there are no examples");
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
    require(low >= 0 && high < outputs, "a label is below 0, or not below the number of outputs");
  } else {
    require_shape("y", y, ffi::F32, {e.n, outputs});
    e.targets = y.typed_data<float>();
  }
  return e;
}

// Runs f, and makes an error of what it throws.
ffi::Error guarded(const char* name, const std::function<void()>& f) {
  try {
    f();
    return ffi::Error::Success();
  } catch (const Wrong& wrong) {
    return ffi::Error::InvalidArgument(std::string("jaxgd, ") + name + ": " + wrong.what);
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, std::string("jaxgd, ") + name + ": out of memory");
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("jaxgd, ") + name + ": " + error.what());
  }
}

// args: x, y, order (n), eta (), then w and b of each layer.
// rets: finite () as an integer, then w and b of each layer.
// For many networks at once, order, eta, w, b and all results have the lanes in front.
ffi::Error Epoch(ffi::RemainingArgs args, ffi::RemainingRets rets, int64_t batch_size) {
  return guarded("epoch", [&] {
    const auto order = at(args, 2), eta = at(args, 3), finite = at(rets, 0);
    const bool many = order.dimensions().size() == 2;
    const int64_t lanes = many ? order.dimensions()[0] : 1;
    const std::vector<int64_t> sizes = sizes_of(args, 4, many ? lanes : -1);
    require(sizes == sizes_of(rets, 1, many ? lanes : -1), "the results are not like the network");
    const Examples examples = examples_of(args, sizes.front(), sizes.back());
    require(batch_size >= 1 && batch_size <= examples.n, "batch_size must be from 1 to the number of examples");
    const std::vector<int64_t> front = many ? std::vector<int64_t>{lanes} : std::vector<int64_t>{};
    std::vector<int64_t> of_order = front;
    of_order.push_back(examples.n);
    require_shape("order", order, ffi::S32, of_order);
    require_shape("eta", eta, ffi::F32, front);
    require_shape("finite", finite, ffi::S32, front);
    const int32_t* rows = order.typed_data<int32_t>();
    int32_t low = 0, high = 0;
    for (int64_t i = 0; i < lanes * examples.n; ++i) low = std::min(low, rows[i]), high = std::max(high, rows[i]);
    require(low >= 0 && high < examples.n, "the order names an example that is not there");
    const int each = team_size(sizes, batch_size, threads() / static_cast<int>(std::min<int64_t>(lanes, threads())));
    in_parallel(lanes, [&](int64_t lane) {
      const Learned learned =
          kernels().epoch(sizes, examples, rows + lane * examples.n, batch_size, eta.typed_data<float>()[lane],
                          layers<Layers>(args, 4, sizes, lane), layers<MutableLayers>(rets, 1, sizes, lane), each);
      finite.typed_data<int32_t>()[lane] = learned.finite;
      if (each > 1) remember(learned.crowded);
    });
  });
}

// args: x, y, then w and b of each layer.
// rets: C (), the outputs (n, out), and, where a gradient is wanted, ∂C/∂w and ∂C/∂b of each layer.
ffi::Error Evaluate(ffi::RemainingArgs args, ffi::RemainingRets rets) {
  return guarded("evaluate", [&] {
    const std::vector<int64_t> sizes = sizes_of(args, 2, -1);
    const Examples examples = examples_of(args, sizes.front(), sizes.back());
    const bool wanted = rets.size() > 2;
    if (wanted) require(sizes == sizes_of(rets, 2, -1), "the results are not like the network");
    require_shape("C", at(rets, 0), ffi::F32, {});
    require_shape("the outputs", at(rets, 1), ffi::F32, {examples.n, sizes.back()});
    float* outputs = at(rets, 1).typed_data<float>();
    const Layers network = layers<Layers>(args, 2, sizes, 0);
    // As many parts whatever the number of threads, so that it does not change a bit. Each costs a sum of its own.
    const int64_t parts = std::clamp<int64_t>(examples.n / 2500, 1, 16);
    std::vector<double> costs(parts);
    std::vector<Gradient> gradients(wanted ? parts : 0);
    in_parallel(parts, [&](int64_t part) {
      if (wanted) {
        Gradient& g = gradients[part];
        g.w.resize(sizes.size()), g.b.resize(sizes.size());
        for (size_t l = 1; l < sizes.size(); ++l) {
          g.w[l].resize(sizes[l - 1] * padded(sizes[l]));
          g.b[l].resize(padded(sizes[l]));
        }
      }
      costs[part] = kernels().evaluate(sizes, examples, examples.n * part / parts, examples.n * (part + 1) / parts,
                                       network, outputs, wanted ? &gradients[part] : nullptr);
    });
    double cost = 0;
    for (const double c : costs) cost += c;
    *at(rets, 0).typed_data<float>() = static_cast<float>(cost / examples.n);
    if (!wanted) return;
    for (size_t l = 1; l < sizes.size(); ++l) {
      const int64_t rows = sizes[l], columns = sizes[l - 1], p = padded(rows);
      float *w = at(rets, 2 * l).typed_data<float>(), *b = at(rets, 2 * l + 1).typed_data<float>();
      Gradient& sum = gradients[0];
      for (int64_t part = 1; part < parts; ++part) {
        for (int64_t i = 0; i < columns * p; ++i) sum.w[l][i] += gradients[part].w[l][i];
        for (int64_t i = 0; i < p; ++i) sum.b[l][i] += gradients[part].b[l][i];
      }
      // Summed up in panels, and handed over neuron by neuron.
      for (int64_t o = 0; o < rows; ++o) {
        for (int64_t i = 0; i < columns; ++i) {
          w[o * columns + i] = static_cast<float>(sum.w[l][place(columns, p, kernels().panel, i, o)] / examples.n);
        }
        b[o] = static_cast<float>(sum.b[l][o] / examples.n);
      }
    }
  });
}

}  // namespace
}  // namespace jaxgd

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxgd_epoch, jaxgd::Epoch,
                              ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attr<int64_t>("batch_size"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxgd_evaluate, jaxgd::Evaluate, ffi::Ffi::Bind().RemainingArgs().RemainingRets());

extern "C" {

const char* jaxgd_machine() { return jaxgd::kernels().name; }

int jaxgd_threads() { return jaxgd::threads(); }
}
