// What the kernels are handed. Everything has been checked by the caller; nothing here owns memory.
//
// A network of L layers has sizes n_0 … n_L. In the kernels a row of n_l numbers is padded with zeros to p_l, the next
// multiple of 16, so that vectors of 16, 8 and 4 floats divide it.
#pragma once

#include <cstdint>
#include <vector>

namespace jaxgd {

constexpr int64_t kPad = 16;
inline int64_t padded(int64_t n) { return (n + kPad - 1) / kPad * kPad; }

// Where row i and column o of weights (rows, p) lie, in panels that are so many columns wide: a panel after the other,
// a panel's rows one after the other. The last may be narrower.
inline int64_t place(int64_t rows, int64_t p, int64_t panel, int64_t i, int64_t o) {
  const int64_t start = o / panel * panel, width = p - start < panel ? p - start : panel;
  return start * rows + i * width + o - start;
}

// The inputs, as rows (n, n_0) of bytes or of floats, and what they should give.
struct Examples {
  int64_t n = 0;
  const uint8_t* bytes = nullptr;
  const float* floats = nullptr;
  // Labels (n), or targets (n, n_L).
  const int32_t* labels = nullptr;
  const float* targets = nullptr;
};

// A network as the caller has it: w[l] is (n_l, n_{l-1}) and b[l] is (n_l), for l from 1; [0] is not used.
struct Layers {
  std::vector<const float*> w, b;
};
struct MutableLayers {
  std::vector<float*> w, b;
};

// A sum of gradients, layer by layer from 1: w[l] is (n_{l-1}, p_l) in panels, and b[l] is (p_l).
struct Gradient {
  std::vector<std::vector<double>> w, b;
};

// How an epoch went: whether no output was NaN, and whether its threads had to wait for processors that others used.
struct Learned {
  bool finite, crowded;
};

// One kind of machine's kernels.
struct Kernels {
  const char* name;
  // One update a mini-batch, over all examples in this order, by so many threads: the result is the same to the bit for
  // any number, which is 1 without a hidden layer and else up to padded(n_1)/kPad.
  Learned (*epoch)(const std::vector<int64_t>& sizes, const Examples& examples, const int32_t* order,
                   int64_t batch_size, float eta, const Layers& before, const MutableLayers& after, int threads);
  // Of the examples from first to last: Σ½‖y − a‖², the outputs a (n, n_L) unless null, and if `gradient` is not null
  // the sum of their gradients is added to it.
  double (*evaluate)(const std::vector<int64_t>& sizes, const Examples& examples, int64_t first, int64_t last,
                     const Layers& network, float* outputs, Gradient* gradient);
  // How many columns a panel of weights has.
  int64_t panel;
};

// The best that this machine can run.
const Kernels& kernels();

namespace avx512 { extern const Kernels kKernels; }
namespace avx2 { extern const Kernels kKernels; }
namespace portable { extern const Kernels kKernels; }

}  // namespace jaxgd
