// Trains two networks on random bytes, for the sanitizers. Usage: main [MINI-BATCHES [SEED]].
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

extern "C" void jaxgd_emulate(const uint8_t* x, const int32_t* labels, const float* targets, const int32_t* orders,
                              const float* etas, float* w1, float* b1, float* w2, float* b2, int32_t* finite, int n,
                              int batch_size, int networks, unsigned seed, int truncate);

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 3, networks = 2;
  // The last mini-batch is short.
  const int n = BATCH * (steps - 1) + (BATCH + 1) / 2, row = (INPUTS + 15) / 16 * 16;
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  // Every array is its own allocation on the heap, so AddressSanitizer finds an access outside it.
  auto* x = static_cast<uint8_t*>(std::aligned_alloc(16, static_cast<size_t>(n) * row));
  for (int i = 0; i < n * row; ++i) x[i] = random() % 5 == 0 && i % row < INPUTS ? random() : 0;
  std::vector<int32_t> labels(n), orders(networks * n), finite(networks);
  for (int i = 0; i < n; ++i) labels[i] = random() % OUTPUTS;
  for (int i = 0; i < networks * n; ++i) orders[i] = i * 7 % n;
  std::vector<float> etas(networks, 3.0f), w1(networks * HIDDEN * INPUTS), b1(networks * HIDDEN);
  std::vector<float> w2(networks * OUTPUTS * HIDDEN), b2(networks * OUTPUTS);
  for (auto* weights : {&w1, &b1, &w2, &b2}) {
    for (float& w : *weights) w = normal(random) / 5;
  }
  jaxgd_emulate(x, labels.data(), nullptr, orders.data(), etas.data(), w1.data(), b1.data(), w2.data(), b2.data(),
                finite.data(), n, BATCH, networks, argc > 2 ? std::atoi(argv[2]) : 0, 0);
  double sum = 0;
  for (const float w : w1) sum += w;
  std::printf("finite %d %d, sum of w1 %.9g\n", finite[0], finite[1], sum);
  std::free(x);
}
