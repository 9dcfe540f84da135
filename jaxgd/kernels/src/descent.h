// The arguments of the kernels, and the table of kernels for each instruction set.
//
// The caller has checked every argument. The structs of arguments point to the caller's arrays. A network of L layers
// has sizes n_0 … n_L. In the kernels a row of n_l numbers is padded with zeros to p_l, the next multiple of 16,
// which is a whole number of vectors of 16, 8 or 4 floats.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>
#include <vector>

namespace jaxgd {

constexpr int64_t kPad = 16;
inline int64_t padded(int64_t n) { return (n + kPad - 1) / kPad * kPad; }

// Returns the index of row i and column o of weights (rows, p) that are stored in panels of `panel` columns. The panels
// follow one another, and so do the rows inside a panel. The last panel may be narrower.
inline int64_t panel_index(int64_t rows, int64_t p, int64_t panel, int64_t i, int64_t o) {
  const int64_t start = o / panel * panel, width = p - start < panel ? p - start : panel;
  return start * rows + i * width + o - start;
}

// n examples. The inputs (n, n_0) are either bytes, used as x/255, or floats. The answers are either labels (n) or
// targets (n, n_L). The unused pointer of each pair is null.
struct Examples {
  int64_t n = 0;
  const uint8_t* bytes = nullptr;
  const float* floats = nullptr;
  const int32_t* labels = nullptr;
  const float* targets = nullptr;
};

// The cost of an example with outputs a = σ(z) and targets y: ½‖y − a‖², or Σ [softplus(z) − y z] over the outputs.
enum class Cost { kQuadratic, kCrossEntropy };

// A network in the caller's layout: w[l] is (n_l, n_{l-1}) and b[l] is (n_l), for l from 1. Index 0 is not used.
struct Layers {
  std::vector<const float*> w, b;
};
struct MutableLayers {
  std::vector<float*> w, b;
};

// A sum of gradients: w[l] is (n_{l-1}, p_l) in panels and b[l] is (p_l), for l from 1. Index 0 is not used.
struct Gradient {
  std::vector<std::vector<double>> w, b;
};

// The result of an epoch. `finite` is true if no output was NaN and, for the cross-entropy, no z of an output was
// infinite. `contended` is true if a thread lost more than an eighth of the epoch because the processor of another
// thread did other work.
struct EpochResult {
  bool finite, contended;
};

// The result of an evaluation. `cost` is the sum of the examples' costs. `right` counts the examples whose largest
// output is the right one. `saturated` is true if every output is within the machine epsilon of 0 or 1.
struct Evaluation {
  double cost = 0;
  int64_t right = 0;
  bool saturated = true;
};

// An epoch makes one update per mini-batch, over all examples in the given order: w → (1 − eta · decay) w − eta · ∂C/∂w
// and b → b − eta · ∂C/∂b. The result is the same, bit for bit, for any number of threads. `threads` is 1 without
// a hidden layer, otherwise 1 to padded(n_1)/kPad.
struct EpochArguments {
  const std::vector<int64_t>& sizes;
  const Examples& examples;
  const int32_t* order;
  int64_t batch_size;
  Cost cost;
  float eta, decay;
  const Layers& before;
  const MutableLayers& after;
  int threads;
};

// The kernels for one instruction set.
struct Kernels {
  const char* name;
  EpochResult (*epoch)(const EpochArguments& arguments);
  // Evaluates the examples in `parts` parts. Takes the next part from `next` until none is left, so several threads can
  // share the parts. Writes the result of part i to results[i], and its sum of gradients to gradients[i] unless
  // `gradients` is null. Writes the outputs (n, n_L) of all examples unless `outputs` is null.
  void (*evaluate)(const std::vector<int64_t>& sizes, const Examples& examples, Cost cost, const Layers& network,
                   int64_t parts, std::atomic<int64_t>& next, Evaluation* results, Gradient* gradients, float* outputs);
  // The number of columns of a panel of weights.
  int64_t panel;
};

// Returns the kernels for an instruction set. Returns null if the library has none, or this processor does not support
// them. An empty name stands for the supported instruction set with the widest vectors.
const Kernels* kernels(std::string_view isa = {});

namespace avx512 {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
namespace portable {
extern const Kernels kKernels;
}

}  // namespace jaxgd
