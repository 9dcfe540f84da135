// For each of two costs, train one network with 1, 2 and 5 threads under the thread sanitizer. The weights must have
// the same bits for any number of threads.
#include <cstdio>
#include <cstring>
#include <vector>

#include "descent.h"

namespace {

int failed(const char* fault) {
  std::puts(fault);
  return 1;
}

}  // namespace

int main() {
  const std::vector<int64_t> sizes{50, 70, 20, 10};
  const int64_t n = 300;
  uint32_t drawn = 1;
  const auto next = [&] { return (drawn = drawn * 1664525u + 1013904223u) >> 16; };
  std::vector<uint8_t> x(n * sizes[0]);
  std::vector<int32_t> y(n), order(n);
  for (auto& byte : x) byte = next() % 3 == 0 ? next() % 256 : 0;
  for (int64_t i = 0; i < n; ++i) {
    y[i] = next() % 10;
    order[i] = (i * 7) % n;
  }
  std::vector<std::vector<float>> start;
  for (size_t l = 1; l < sizes.size(); ++l) {
    start.emplace_back(sizes[l] * sizes[l - 1]);
    start.emplace_back(sizes[l]);
    for (float& v : start[2 * l - 2]) v = next() / 65536.0f - 0.5f;
  }
  jaxgd::Examples examples;
  examples.n = n;
  examples.bytes = x.data();
  examples.labels = y.data();
  std::vector<std::vector<float>> first;
  for (const int64_t batch_size : {7, 150}) {
    // The cross-entropy with decay, and the quadratic cost without it.
    const auto cost = batch_size == 7 ? jaxgd::Cost::kCrossEntropy : jaxgd::Cost::kQuadratic;
    const float decay = batch_size == 7 ? 0.01f : 0;
    for (const int threads : {1, 2, 5}) {
      auto weights = start;
      jaxgd::Layers before;
      jaxgd::MutableLayers after;
      for (auto* pointers : {&before.w, &before.b}) pointers->resize(sizes.size());
      for (auto* pointers : {&after.w, &after.b}) pointers->resize(sizes.size());
      for (size_t l = 1; l < sizes.size(); ++l) {
        before.w[l] = after.w[l] = weights[2 * l - 2].data();
        before.b[l] = after.b[l] = weights[2 * l - 1].data();
      }
      const jaxgd::EpochResult result = jaxgd::portable::kKernels.epoch(
          {sizes, examples, order.data(), batch_size, cost, 0.5f, decay, before, after, threads});
      if (!result.finite || weights == start) return failed("the weights are unchanged, or `finite` is false");
      if (threads == 1) first = weights;
      if (weights != first) return failed("the number of threads changes the weights");
    }
  }
  std::puts("the same bits");
}
