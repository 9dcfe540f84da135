// Runs an epoch of mini-batches, and evaluates a network on many examples: cost, accuracy, outputs and gradient. This
// file is compiled once per instruction set: JAXGD_ISA is the set's name and the namespace, and JAXGD_LANES is the
// number of floats in one of the set's vectors.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <numeric>
#include <optional>
#include <thread>
#include <vector>

#include "descent.h"
#include "products.h"
#include "team.h"
#include "trainer.h"
#include "weights.h"

namespace jaxgd::JAXGD_ISA {
namespace {

// The most examples that pass through the network together. An evaluation of inputs in bytes uses smaller blocks:
// two tiles, which are packed together. Larger blocks were no faster.
constexpr int64_t kBlock = 64;
constexpr int64_t kBytesBlock = 2 * kTileRows;

// Runs f(0) in this thread, and f(1) … f(count − 1) each in a new thread, because the calls wait for one another. If
// the system refuses to start a thread, returns false without calling f.
template <typename F>
bool run_team(int count, const F& f) {
  enum { kWait, kGo, kGiveUp };
  std::atomic<int> signal{kWait};
  std::vector<std::thread> others;
  try {
    others.reserve(count - 1);
    for (int i = 1; i < count; ++i) {
      others.emplace_back([&, i] {
        while (signal.load(std::memory_order_acquire) == kWait) std::this_thread::yield();
        if (signal == kGo) f(i);
      });
    }
    signal = kGo;
  } catch (const std::exception&) {
    signal = kGiveUp;
  }
  if (signal == kGo) f(0);
  for (std::thread& other : others) other.join();
  return signal == kGo;
}

// Runs an epoch with a team of `threads` threads. Returns nothing if the system refuses to start a thread.
std::optional<EpochResult> epoch_by_team(const EpochArguments& given, int threads) {
  const auto began = std::chrono::steady_clock::now();
  // A mini-batch is split into blocks of one size; only the last may be smaller. If it has several blocks, their
  // gradients are summed before the update.
  const int64_t n = given.examples.n, batch_size = given.batch_size;
  const int64_t blocks = (batch_size + kBlock - 1) / kBlock, block = (batch_size + blocks - 1) / blocks;
  Team team(threads, block, padded(given.sizes[1]));
  std::vector<std::unique_ptr<Trainer>> trainers;
  std::vector<Sums> sums;
  for (int rank = 0; rank < threads; ++rank) {
    trainers.push_back(std::make_unique<Trainer>(given.sizes, given.examples, block, given.cost, team, rank));
    trainers.back()->read(given.before);
    if (blocks > 1) sums.push_back(trainers.back()->sums());
  }
  bool finite = true;
  const auto train = [&](int rank) {
    Trainer& trainer = *trainers[rank];
    const auto row_of = [&](int64_t i) { return static_cast<int64_t>(given.order[i]); };
    const auto block_at = [&](int64_t at) {
      const int64_t end = std::min(n, (at / batch_size + 1) * batch_size);
      return Block{at, std::min(block, end - at)};
    };
    const double shrinkage = static_cast<double>(given.eta) * given.decay;
    bool all_finite = true;
    Block now = block_at(0);
    trainer.begin(now, row_of);
    while (now.m > 0) {
      const int64_t start = now.at / batch_size * batch_size, m = std::min(batch_size, n - start);
      const Block next = block_at(now.at + now.m);
      trainer.feed_forward(now, row_of, next, std::min(now.m, n - next.at - next.m));
      all_finite &= trainer.is_finite(now.m);
      trainer.feed_back(now, row_of, given.eta / static_cast<float>(m));
      if (blocks == 1) {
        trainer.step(now.m, shrinkage);
      } else {
        if (now.at == start) sums[rank].clear();
        trainer.add_to(sums[rank], now.m);
        if (next.at == start + m) trainer.descend(sums[rank], shrinkage);
      }
      now = next;
    }
    trainer.write(given.after);
    // All threads compute the same outputs, so one result is enough.
    if (rank == 0) finite = all_finite;
  };
  if (!run_team(threads, train)) return std::nullopt;
  double lost = 0;
  for (const auto& trainer : trainers) lost = std::max(lost, trainer->lost());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return EpochResult{finite, lost > seconds / 8};
}

EpochResult epoch(const EpochArguments& given) {
  const std::optional<EpochResult> result = epoch_by_team(given, given.threads);
  // A team of one thread uses the caller's thread, so it always runs.
  return result ? *result : epoch_by_team(given, 1).value_or(EpochResult{});
}

// Returns the rows first … last − 1, sorted by label if the inputs are bytes and the answers are labels. Images of one
// label have more zeros in common, and the kernel skips an input that is 0 in all images of a tile. In tiles of six
// images of digits, the kernel uses 37% of the inputs if the rows are sorted, and 43% in the order of the data.
std::vector<int64_t> rows_to_evaluate(const Examples& examples, int64_t first, int64_t last, int64_t classes) {
  std::vector<int64_t> rows(last - first);
  std::iota(rows.begin(), rows.end(), first);
  // With more classes than rows, do not sort: the counts of the labels would need more memory than the rows.
  if (examples.bytes == nullptr || examples.labels == nullptr || classes > last - first) return rows;
  std::vector<int64_t> ends(classes + 1);
  for (int64_t row = first; row < last; ++row) ++ends[examples.labels[row] + 1];
  for (int64_t label = 0; label < classes; ++label) ends[label + 1] += ends[label];
  for (int64_t row = first; row < last; ++row) rows[ends[examples.labels[row]]++] = row;
  return rows;
}

// Adds float32 sums to a float64 gradient, and sets the sums to zero. An empty gradient counts as zero.
void flush(Sums& sums, Gradient& gradient) {
  const auto add = [](std::vector<double>& to, const float* from, int64_t size) {
    to.resize(size);
    for (int64_t i = 0; i < size; ++i) to[i] += from[i];
  };
  gradient.w.resize(sums.w.size());
  gradient.b.resize(sums.b.size());
  for (size_t l = 1; l < sums.w.size(); ++l) {
    add(gradient.w[l], sums.w[l].get(), sums.size_w[l]);
    add(gradient.b[l], sums.b[l].get(), sums.size_b[l]);
  }
  sums.clear();
}

void evaluate(const std::vector<int64_t>& sizes, const Examples& examples, Cost cost, const Layers& network,
              int64_t parts, std::atomic<int64_t>& next_part, Evaluation* results, Gradient* gradients,
              float* outputs) {
  const int64_t block = examples.bytes != nullptr ? kBytesBlock : kBlock, classes = sizes.back();
  Team team(1, block, padded(sizes[1]));
  Trainer trainer(sizes, examples, block, cost, team, 0);
  trainer.read(network);
  std::optional<Sums> sums;
  if (gradients != nullptr) sums = trainer.sums();
  // Flush the float32 sums after this many examples. A smaller number costs time, and a larger number costs accuracy.
  constexpr int64_t kExamples = 512;
  for (int64_t part = next_part.fetch_add(1); part < parts; part = next_part.fetch_add(1)) {
    const int64_t first = examples.n * part / parts, last = examples.n * (part + 1) / parts, n = last - first;
    const std::vector<int64_t> rows = rows_to_evaluate(examples, first, last, classes);
    const auto row_of = [&](int64_t i) { return rows[i]; };
    const auto block_at = [&](int64_t at) { return Block{at, std::min(block, n - at)}; };
    Evaluation result;
    int64_t flushed = 0;
    trainer.begin(block_at(0), row_of);
    for (int64_t at = 0; at < n; at += block) {
      const Block now = block_at(at), next = block_at(at + now.m);
      trainer.feed_forward(now, row_of, next, std::max<int64_t>(0, std::min(block, n - next.at - next.m)));
      trainer.judge(now, row_of, result);
      for (int64_t e = 0; e < now.m && outputs != nullptr; ++e) {
        std::memcpy(outputs + rows[at + e] * classes, trainer.outputs(e), classes * sizeof(float));
      }
      if (!sums) continue;
      trainer.feed_back(now, row_of, -1.0f);
      trainer.add_to(*sums, now.m);
      if (at + now.m - flushed >= kExamples) {
        flush(*sums, gradients[part]);
        flushed = at + now.m;
      }
    }
    if (sums) flush(*sums, gradients[part]);
    results[part] = result;
  }
}

}  // namespace

#define JAXGD_TEXT(x) #x
#define JAXGD_NAME(x) JAXGD_TEXT(x)
extern const Kernels kKernels = {JAXGD_NAME(JAXGD_ISA), epoch, evaluate, kPanel};

}  // namespace jaxgd::JAXGD_ISA
