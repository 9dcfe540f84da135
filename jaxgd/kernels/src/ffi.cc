// The functions that JAX and Python call. They check every shape and index, because the kernels check none.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "arguments.h"
#include "descent.h"
#include "threads.h"

namespace jaxgd {
namespace {

// Checks the shapes of a network's weights and biases, and returns its sizes. The weights and biases are args first,
// first + 1, …. Each has a leading axis of `batch` networks, unless batch is −1.
template <typename Buffers>
std::vector<int64_t> sizes_of(const Buffers& args, size_t first, int64_t batch) {
  require(args.size() >= first + 2 && (args.size() - first) % 2 == 0,
          "expected a weight and a bias for each layer, got ", args.size() - first, " arrays");
  const size_t front = batch < 0 ? 0 : 1;
  const auto in_batch = [&](std::vector<int64_t> shape) {
    if (front == 1) shape.insert(shape.begin(), batch);
    return shape;
  };
  std::vector<int64_t> sizes;
  for (size_t i = first; i < args.size(); i += 2) {
    const auto w = at(args, i), b = at(args, i + 1);
    require(w.dimensions().size() == front + 2, "a weight must be (out, in), got ", w);
    const int64_t out = w.dimensions()[front], in = w.dimensions()[front + 1];
    if (sizes.empty()) sizes.push_back(in);
    require(out > 0 && in > 0 && in == sizes.back(), "a weight does not follow the previous layer: expected (out, ",
            sizes.back(), "), got ", w);
    require_shape("a weight", w, ffi::F32, in_batch({out, in}));
    require_shape("a bias", b, ffi::F32, in_batch({out}));
    sizes.push_back(out);
  }
  return sizes;
}

// Returns pointers to the weights and biases of the `index`-th network of a batch.
template <typename Pointers, typename Buffers>
Pointers layers(const Buffers& buffers, size_t first, const std::vector<int64_t>& sizes, int64_t index) {
  Pointers network;
  network.w.resize(sizes.size());
  network.b.resize(sizes.size());
  for (size_t l = 1; l < sizes.size(); ++l) {
    const size_t i = first + 2 * (l - 1);
    network.w[l] = static_cast<float*>(at(buffers, i).untyped_data()) + index * sizes[l] * sizes[l - 1];
    network.b[l] = static_cast<float*>(at(buffers, i + 1).untyped_data()) + index * sizes[l];
  }
  return network;
}

// Returns true if all `count` indices are from 0 to end − 1. No branch depends on an index, so this loop is vectorized.
bool are_below(const int32_t* indices, int64_t count, int64_t end) {
  int32_t low = 0, high = 0;
  for (int64_t i = 0; i < count; ++i) {
    low = std::min(low, indices[i]);
    high = std::max(high, indices[i]);
  }
  return low >= 0 && high < end;
}

// Checks and returns the examples. Arg 0 is x (n, inputs), bytes or floats; arg 1 is y, labels (n) or targets
// (n, outputs).
Examples examples_of(const ffi::RemainingArgs& args, int64_t inputs, int64_t outputs) {
  Examples e;
  const auto x = at(args, 0), y = at(args, 1);
  require(y.dimensions().size() > 0, "y must be labels (n) or targets (n, out), got ", y);
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
    require(are_below(e.labels, e.n, outputs), "a label is below 0 or too large: expected 0 to ", outputs - 1, " for ",
            outputs, " outputs");
  } else {
    require_shape("y", y, ffi::F32, {e.n, outputs});
    e.targets = y.typed_data<float>();
  }
  return e;
}

Cost cost_of(const ffi::Dictionary& attributes) {
  const auto name = attribute<std::string_view>(attributes, "cost");
  if (name == "quadratic") return Cost::kQuadratic;
  require(name == "cross-entropy", "cost must be quadratic or cross-entropy, got ", name);
  return Cost::kCrossEntropy;
}

// Returns the kernels for the attribute "isa", an instruction set. Without it, returns those for the widest vectors
// that this processor supports.
const Kernels& kernels_of(const ffi::Dictionary& attributes) {
  const auto isa = attribute<std::string_view>(attributes, "isa", {});
  const Kernels* selected = kernels(isa);
  require(selected != nullptr, "isa must be an instruction set of this processor, got ", isa);
  return *selected;
}

TeamSize team_size;

// Returns the number of threads that train each network. It is the attribute "threads", but at most TeamSize::largest.
// If the attribute is 0 or missing, TeamSize::next chooses the number.
int team_for(const ffi::Dictionary& attributes, const std::vector<int64_t>& sizes, int64_t batch_size,
             int64_t networks) {
  const auto requested = attribute<int64_t>(attributes, "threads", 0);
  if (requested > 0) return static_cast<int>(std::min(requested, TeamSize::largest(sizes)));
  const int available = threads();
  return team_size.next(sizes, batch_size, available / static_cast<int>(std::min<int64_t>(networks, available)));
}

// args: x, y, order (n), eta (), decay (), then w and b of each layer.
// rets: finite () as an integer, 1 if EpochResult::finite is true, then w and b of each layer.
// attributes: batch_size, cost, and optionally isa and threads.
// To train a batch of networks, give order, eta, decay, w, b and all results a leading axis.
ffi::Error run_epoch(ffi::RemainingArgs args, ffi::RemainingRets rets, ffi::Dictionary attributes) {
  return guarded("epoch", [&] {
    require_known(attributes, {"batch_size", "cost", "isa", "threads"});
    const Cost cost = cost_of(attributes);
    const Kernels& kernels = kernels_of(attributes);
    const auto batch_size = attribute<int64_t>(attributes, "batch_size");
    const auto order = at(args, 2), eta = at(args, 3), decay = at(args, 4), finite = at(rets, 0);
    const bool batched = order.dimensions().size() == 2;
    const int64_t networks = batched ? order.dimensions()[0] : 1;
    const std::vector<int64_t> sizes = sizes_of(args, 5, batched ? networks : -1);
    require(sizes == sizes_of(rets, 1, batched ? networks : -1), "the results must have the shapes of the network");
    const Examples examples = examples_of(args, sizes.front(), sizes.back());
    require(batch_size >= 1 && batch_size <= examples.n, "batch_size must be from 1 to the number of examples, ",
            examples.n, ", got ", batch_size);
    const std::vector<int64_t> front = batched ? std::vector<int64_t>{networks} : std::vector<int64_t>{};
    std::vector<int64_t> of_order = front;
    of_order.push_back(examples.n);
    require_shape("order", order, ffi::S32, of_order);
    require_shape("eta", eta, ffi::F32, front);
    require_shape("decay", decay, ffi::F32, front);
    require_shape("finite", finite, ffi::S32, front);
    const int32_t* rows = order.typed_data<int32_t>();
    require(are_below(rows, networks * examples.n, examples.n), "the order names an example outside 0 to ",
            examples.n - 1);
    const int team = team_for(attributes, sizes, batch_size, networks);
    in_parallel(networks, [&](int64_t i) {
      const auto before = layers<Layers>(args, 5, sizes, i);
      const auto after = layers<MutableLayers>(rets, 1, sizes, i);
      const EpochResult result =
          kernels.epoch({sizes, examples, rows + i * examples.n, batch_size, cost, eta.typed_data<float>()[i],
                         decay.typed_data<float>()[i], before, after, team});
      finite.typed_data<int32_t>()[i] = result.finite ? 1 : 0;
      if (team > 1) team_size.update(result.contended);
    });
  });
}

// Adds the parts' sums of gradients, and divides the result by n, the number of examples. Writes ∂C/∂w and
// ∂C/∂b of each layer to rets first, first + 1, …. Overwrites the sum of the first part.
void write_mean(std::vector<Gradient>& parts, int64_t n, const std::vector<int64_t>& sizes, int64_t panel,
                const ffi::RemainingRets& rets, size_t first) {
  const auto count = static_cast<double>(n);
  Gradient& sum = parts[0];
  for (size_t l = 1; l < sizes.size(); ++l) {
    const int64_t rows = sizes[l], columns = sizes[l - 1], p = padded(rows);
    for (size_t part = 1; part < parts.size(); ++part) {
      for (int64_t i = 0; i < columns * p; ++i) sum.w[l][i] += parts[part].w[l][i];
      for (int64_t i = 0; i < p; ++i) sum.b[l][i] += parts[part].b[l][i];
    }
    // The sums are stored in panels. Write them in the caller's layout, one row per neuron.
    auto *w = at(rets, first + 2 * (l - 1)).typed_data<float>(), *b = at(rets, first + 2 * l - 1).typed_data<float>();
    for (int64_t o = 0; o < rows; ++o) {
      for (int64_t i = 0; i < columns; ++i) {
        w[o * columns + i] = static_cast<float>(sum.w[l][panel_index(columns, p, panel, i, o)] / count);
      }
      b[o] = static_cast<float>(sum.b[l][o] / count);
    }
  }
}

// args: x, y, then w and b of each layer.
// rets: C (), the accuracy (), saturated () as an integer, 1 if every output is within the machine epsilon of 0 or 1,
// then optionally the outputs (n, out), then optionally ∂C/∂w and ∂C/∂b of each layer.
// attributes: cost, and optionally isa.
ffi::Error run_evaluation(ffi::RemainingArgs args, ffi::RemainingRets rets, ffi::Dictionary attributes) {
  return guarded("evaluate", [&] {
    require_known(attributes, {"cost", "isa"});
    const Cost cost = cost_of(attributes);
    const Kernels& kernels = kernels_of(attributes);
    const std::vector<int64_t> sizes = sizes_of(args, 2, -1);
    const Examples examples = examples_of(args, sizes.front(), sizes.back());
    const auto c = at(rets, 0), accuracy = at(rets, 1), saturated = at(rets, 2);
    require_shape("C", c, ffi::F32, {});
    require_shape("the accuracy", accuracy, ffi::F32, {});
    require_shape("saturated", saturated, ffi::S32, {});
    // Without the outputs, the number of results is odd: three, and two for each layer if the gradient is wanted.
    const bool with_outputs = rets.size() % 2 == 0;
    const size_t slopes = with_outputs ? 4 : 3;
    const bool with_gradient = rets.size() > slopes;
    if (with_gradient) require(sizes == sizes_of(rets, slopes, -1), "the results must have the shapes of the network");
    if (with_outputs) require_shape("the outputs", at(rets, 3), ffi::F32, {examples.n, sizes.back()});
    const auto network = layers<Layers>(args, 2, sizes, 0);
    // The number of parts decides the bits of the result, so it must not depend on the number of threads. Every part
    // needs memory and time for a sum of its own, so there are at most 16.
    const int64_t parts = std::clamp<int64_t>(examples.n / 2500, 1, 16);
    std::vector<Evaluation> results(parts);
    std::vector<Gradient> gradients(with_gradient ? parts : 0);
    std::atomic<int64_t> next{0};
    on_threads(parts, [&] {
      kernels.evaluate(sizes, examples, cost, network, parts, next, results.data(),
                       with_gradient ? gradients.data() : nullptr,
                       with_outputs ? at(rets, 3).typed_data<float>() : nullptr);
    });
    Evaluation total;
    for (const Evaluation& result : results) {
      total.cost += result.cost;
      total.right += result.right;
      total.saturated &= result.saturated;
    }
    *c.typed_data<float>() = static_cast<float>(total.cost / static_cast<double>(examples.n));
    *accuracy.typed_data<float>() = static_cast<float>(total.right) / static_cast<float>(examples.n);
    *saturated.typed_data<int32_t>() = total.saturated ? 1 : 0;
    if (with_gradient) write_mean(gradients, examples.n, sizes, kernels.panel, rets, slopes);
  });
}

}  // namespace
}  // namespace jaxgd

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxgd_epoch, jaxgd::run_epoch, ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attrs());
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxgd_evaluate, jaxgd::run_evaluation,
                              ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attrs());

extern "C" {

// The name of the widest instruction set of this processor for which the library has kernels.
const char* jaxgd_isa() { return jaxgd::kernels()->name; }

// The number of processors that the kernels may use.
int jaxgd_threads() { return jaxgd::threads(); }
}
