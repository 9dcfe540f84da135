// Trains networks [INPUTS, HIDDEN, OUTPUTS] for an epoch, by mini-batch descent on the quadratic cost. One block trains
// one network.
//
// shape.py computes the constants in capitals. block.h has the operations of a block.
//
// The weights of the first layer stay in registers for the whole epoch. Each warp holds the weights from some groups of
// 8 inputs to all hidden neurons. A step is the update by one mini-batch. It has five phases, and a barrier follows
// each of the first four:
//   1. every warp computes the part of z from its own inputs, on the tensor core;
//   2. the block sums the parts of z, and computes the hidden outputs;
//   3. the block computes the outputs and the error of the output layer;
//   4. the block computes the error of the hidden layer;
//   5. the block updates the output layer and the biases, and every warp its own weights of the first layer.
// Meanwhile the device copies the images of the next steps to shared memory.
//
// The tensor core multiplies TF32 numbers, which have 11 significant bits. A byte is exact in TF32. With
// PARTS = 2, two TF32 numbers hold 22 bits of a float32. With PARTS = 1, one TF32 number holds 11 bits.
#include <block.h>

constexpr int kInputs = INPUTS, kHidden = HIDDEN, kOutputs = OUTPUTS, kBatch = BATCH, kParts = PARTS;
constexpr int kWarps = WARPS, kGroups = GROUPS, kStages = STAGES;
constexpr int kThreads = 32 * kWarps;
// Bytes from one image to the next, in global and in shared memory. An odd multiple of 16 spreads the images over the
// banks of shared memory.
constexpr int kRow = (kInputs + 15) / 16 * 16, kPitch = kRow / 16 % 2 == 1 ? kRow : kRow + 16;
constexpr int kAllGroups = (kInputs + 7) / 8;
// A tile has 16 hidden neurons or 8 examples. kNeurons and kExamples include the padding of the last tile.
constexpr int kNeuronTiles = (kHidden + 15) / 16, kNeurons = 16 * kNeuronTiles;
constexpr int kExampleTiles = (kBatch + 7) / 8, kExamples = 8 * kExampleTiles;
// Floats from one example or output neuron to the next. These strides spread a warp's accesses over the banks.
constexpr int kStride = 36, kErrorStride = 40;
// The most examples per warp in phases 2 and 4, and the most outputs per group of 4 threads in phase 3.
constexpr int kWarpExamples = (kBatch + kWarps - 1) / kWarps;
constexpr int kSlots = (4 * kBatch * kOutputs + kThreads - 1) / kThreads;
static_assert(kHidden <= 32 && kOutputs <= 16 && kBatch <= 16 && kWarps * kGroups >= kAllGroups, "shape.py");
static_assert(kParts == 1 || kParts == 2, "shape.py");

struct Shared {
  alignas(128) Array<uint8_t, kStages * kBatch * kPitch> images;
  Array<float, kWarps * kExamples * kStride> parts;  // of z
  Array<float, kExamples * kStride> a1;
  Array<float, kExamples * kErrorStride> d1;
  Array<float, kExamples * 16> d2;
  Array<float, 16 * kStride> w2;
  Array<float, kNeurons> b1;
  Array<float, 16> b2;
  Array<Arrivals, kStages> arrivals;
};
static_assert(sizeof(Shared) == SHARED_BYTES, "shape.py");

// Returns a byte as a float. 0x4b000000 is the float 2²³, whose lowest bit is worth 1.
DEVICE float byte_to_float(uint32_t byte) { return of_bits(0x4b000000u | byte) - 8388608.0f; }

// Returns x without the 13 bits that the tensor core ignores.
DEVICE float high(float x) { return of_bits(bits(x) & 0xffffe000u); }

// d += a b, where b is exact in TF32 and a is split into kParts TF32 numbers.
DEVICE void product(float (&d)[4], const float (&a)[4], const uint32_t (&b)[2]) {
  uint32_t part[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) part[i] = bits(high(a[i]));
  multiply_add(d, part, b);
  if (kParts == 2) {
#pragma unroll
    for (int i = 0; i < 4; ++i) part[i] = bits(high(a[i] - high(a[i])));
    multiply_add(d, part, b);
  }
}

struct Sigmoid {
  float value, slope;
};

// Returns σ(z) and σ′(z) = σ(z)σ(−z). Computing 1 − σ(z) in place of σ(−z) would lose digits if z is large.
DEVICE Sigmoid sigmoid(float z) {
  const float t = fast_exp(z < 0.0f ? z : -z), r = fast_reciprocal(1.0f + t);
  return {z < 0.0f ? t * r : r, t * r * r};
}

// x holds n rows of kRow bytes. The answers are labels, (n), or targets, (n, kOutputs), if `labels` is null. The shape
// of orders is (networks, n). etas and finite hold one number per network. The weights and biases have a leading axis
// of networks, and are updated in place. `finite` is 1 if no output was NaN, every label names an output, and every
// index in the order names an example.
// The phases share registers, so they are one function. NOLINTBEGIN(readability-function-cognitive-complexity)
KERNEL(kThreads)
jaxgd_descend(const uint8_t* x, const int32_t* labels, const float* targets, const int32_t* orders, const float* etas,
              float* w1s, float* b1s, float* w2s, float* b2s, int32_t* finite, int n, int batch_size) {
  auto& s = shared<Shared>();
  const int t = thread_index(), warp = t / 32, lane = t % 32, row = lane / 4, col = lane % 4;
  const int64_t network = block_index();
  const int32_t* order = orders + network * n;
  const float eta = etas[network];
  float *w1 = w1s + network * kHidden * kInputs, *b1 = b1s + network * kHidden;
  float *w2 = w2s + network * kOutputs * kHidden, *b2 = b2s + network * kOutputs;
  const int steps = (n - 1) / batch_size + 1;
  const auto count_of = [&](int step) { return min(batch_size, n - step * batch_size); };
  // Returns the row of example e of a step. An index out of range returns row 0, and sets `finite` to 0 at the end.
  bool valid = true;
  const auto row_of = [&](int step, int e) {
    const int32_t r = order[static_cast<int64_t>(step) * batch_size + e];
    if (r >= 0 && r < n) return r;
    valid = false;
    return 0;
  };

  // The groups of inputs that this warp holds, and its weights. w[g][m][i] belongs to neuron 16 m + row + 8 (i / 2) and
  // input 8 (first + g) + 2 col + i % 2. This is the layout of the tensor core's sums.
  const int first = kAllGroups * warp / kWarps, groups = kAllGroups * (warp + 1) / kWarps - first;
  const auto holds = [&](int g) { return kWarps * kGroups == kAllGroups || g < groups; };
  float w[kGroups][kNeuronTiles][4];
#pragma unroll
  for (int g = 0; g < kGroups; ++g)
#pragma unroll
    for (int m = 0; m < kNeuronTiles; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = 16 * m + row + 8 * (i / 2), p = 8 * (first + g) + 2 * col + i % 2;
        w[g][m][i] = holds(g) && j < kHidden && p < kInputs ? w1[j * kInputs + p] : 0.0f;
      }
  for (int i = t; i < 16 * kStride; i += kThreads) {
    const int k = i / kStride, j = i % kStride;
    s.w2[i] = k < kOutputs && j < kHidden ? w2[k * kHidden + j] : 0.0f;
  }
  // The padding of the tiles of examples must add nothing to the sums over examples.
  for (int i = t; i < kExamples * kErrorStride; i += kThreads) s.d1[i] = 0.0f;
  for (int i = t; i < kNeurons; i += kThreads) s.b1[i] = i < kHidden ? b1[i] : 0.0f;
  for (int i = t; i < 16; i += kThreads) s.b2[i] = i < kOutputs ? b2[i] : 0.0f;

  // Warp 0 starts the copies of images, one lane per example. It reads the row numbers of the images one step early.
  int32_t next_row = warp == 0 && lane < count_of(0) ? row_of(0, lane) : 0;
  const auto fetch = [&](int step) {
    const int stage = step % kStages, count = count_of(step);
    if (lane == 0) arrivals_expect(s.arrivals.span(stage, 1), count * kRow);
    warp_barrier();
    fence_before_copies();
    if (lane < count) {
      bulk_copy(s.images.span((stage * kBatch + lane) * kPitch, kRow), x + static_cast<int64_t>(next_row) * kRow, kRow,
                s.arrivals.span(stage, 1));
    }
    if (step + 1 < steps && lane < count_of(step + 1)) next_row = row_of(step + 1, lane);
  };
  if (t == 0) {
    for (int i = 0; i < kStages; ++i) arrivals_init(s.arrivals.span(i, 1));
  }

  // Four threads compute one output. They load its answer one step early, and the answer's row number two steps
  // early. An answer is a label, or the bits of a target.
  int32_t answer_row[kSlots];
  uint32_t answer[kSlots], next_answer[kSlots];
  const auto output_of = [&](int slot) { return min((t + slot * kThreads) / 4, kBatch * kOutputs - 1); };
  const auto answer_at = [&](int slot, int64_t r) {
    if (labels == nullptr) return bits(targets[r * kOutputs + output_of(slot) % kOutputs]);
    return static_cast<uint32_t>(labels[r]);
  };
  const auto answer_row_at = [&](int step, int slot) {
    return step < steps ? row_of(step, min(output_of(slot) / kOutputs, count_of(step) - 1)) : 0;
  };
#pragma unroll
  for (int slot = 0; slot < kSlots; ++slot) {
    next_answer[slot] = answer_at(slot, answer_row_at(0, slot));
    answer_row[slot] = answer_row_at(1, slot);
  }
  barrier();
  if (warp == 0) {
    for (int step = 0; step < kStages - 1 && step < steps; ++step) fetch(step);
  }

  for (int step = 0; step < steps; ++step) {
    const int stage = step % kStages, count = count_of(step), images = stage * kBatch * kPitch + 8 * first;
    const float rate = -eta / static_cast<float>(count);
#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) {
      answer[slot] = next_answer[slot];
      next_answer[slot] = answer_at(slot, answer_row[slot]);
      answer_row[slot] = answer_row_at(step + 2, slot);
    }
    arrivals_wait(s.arrivals.span(stage, 1), step / kStages % 2);

    // This warp's part of z = w x. In a short mini-batch, the last example replaces missing ones. Their δ is 0.
    float z[kNeuronTiles][kExampleTiles][4] = {};
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (!holds(g)) break;
      uint32_t b[kExampleTiles][2];
#pragma unroll
      for (int k = 0; k < kExampleTiles; ++k) {
        const uint32_t pair = two_bytes(s.images, images + min(8 * k + row, count - 1) * kPitch + 8 * g + 2 * col);
        b[k][0] = bits(byte_to_float(pair & 0xff));
        b[k][1] = bits(byte_to_float(pair >> 8));
      }
#pragma unroll
      for (int m = 0; m < kNeuronTiles; ++m) {
        // Columns 2 col and 2 col + 1 of a sum serve as columns col and col + 4 of a factor, so lanes exchange no data.
        const float a[4] = {w[g][m][0], w[g][m][2], w[g][m][1], w[g][m][3]};
#pragma unroll
        for (int k = 0; k < kExampleTiles; ++k) product(z[m][k], a, b[k]);
      }
    }
#pragma unroll
    for (int m = 0; m < kNeuronTiles; ++m)
#pragma unroll
      for (int k = 0; k < kExampleTiles; ++k)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int e = 8 * k + 2 * col + i % 2, j = 16 * m + row + 8 * (i / 2);
          s.parts[(warp * kExamples + e) * kStride + j] = z[m][k][i];
        }
    barrier();

    // After this barrier, no warp reads the images of the previous step, so a copy may replace them.
    if (warp == 0 && step + kStages - 1 < steps) fetch(step + kStages - 1);
    float slope[kWarpExamples] = {};
#pragma unroll
    for (int i = 0; i < kWarpExamples; ++i) {
      const int e = warp + i * kWarps;
      if (e >= kBatch || lane >= kNeurons) continue;
      float sum = 0.0f;
#pragma unroll
      for (int v = 0; v < kWarps; ++v) sum += s.parts[(v * kExamples + e) * kStride + lane];
      const Sigmoid a = sigmoid(fused(sum, 1.0f / 255.0f, s.b1[lane]));
      s.a1[e * kStride + lane] = lane < kHidden ? a.value : 0.0f;
      slope[i] = a.slope;
    }
    barrier();

#pragma unroll
    for (int slot = 0; slot < kSlots; ++slot) {
      const int q = output_of(slot), k = q % kOutputs, e = q / kOutputs;
      float sum = 0.0f;
#pragma unroll
      for (int i = 0; i < kNeurons / 4; ++i) {
        sum = fused(s.w2[k * kStride + 4 * i + t % 4], s.a1[e * kStride + 4 * i + t % 4], sum);
      }
      sum += from_lane_xor(sum, 1);
      sum += from_lane_xor(sum, 2);
      if (t % 4 != 0 || t + slot * kThreads >= 4 * kBatch * kOutputs) continue;
      const Sigmoid a = sigmoid(sum + s.b2[k]);
      float y = of_bits(answer[slot]);
      if (labels != nullptr) {
        y = answer[slot] == static_cast<uint32_t>(k) ? 1.0f : 0.0f;
        valid &= answer[slot] < static_cast<uint32_t>(kOutputs);
      }
      // The comparison is false for NaN.
      valid &= a.value >= 0.0f;
      s.d2[e * 16 + k] = e < count ? (a.value - y) * a.slope : 0.0f;
    }
    barrier();

#pragma unroll
    for (int i = 0; i < kWarpExamples; ++i) {
      const int e = warp + i * kWarps;
      if (e >= kBatch || lane >= kNeurons) continue;
      float sum = 0.0f;
#pragma unroll
      for (int k = 0; k < kOutputs; ++k) sum = fused(s.w2[k * kStride + lane], s.d2[e * 16 + k], sum);
      s.d1[e * kErrorStride + lane] = rate * (sum * slope[i]);
    }
    barrier();

    // Update the output layer and the biases. One warp updates each row of w2, one warp b1, and one warp b2.
    for (int k = warp; k < kOutputs + 2; k += kWarps) {
      float sum = 0.0f;
      if (k < kOutputs && lane < kNeurons) {
#pragma unroll
        for (int e = 0; e < kBatch; ++e) sum = fused(s.d2[e * 16 + k], s.a1[e * kStride + lane], sum);
        s.w2[k * kStride + lane] = fused(rate, sum, s.w2[k * kStride + lane]);
      } else if (k == kOutputs && lane < kNeurons) {
        for (int e = 0; e < kBatch; ++e) sum += s.d1[e * kErrorStride + lane];
        s.b1[lane] += sum;
      } else if (k == kOutputs + 1 && lane < kOutputs) {
        for (int e = 0; e < kBatch; ++e) sum += s.d2[e * 16 + lane];
        s.b2[lane] = fused(rate, sum, s.b2[lane]);
      }
    }
    // Update the weights of the first layer. The tensor core computes the change, and an ordinary addition adds it to
    // the weights. The tensor core may truncate its sums, so adding the weights there could shrink them a little at
    // each step. An unrolled loop would need more registers than a thread has.
#pragma unroll 1
    for (int k = 0; k < kExampleTiles; ++k) {
      float d[kNeuronTiles][4];
#pragma unroll
      for (int m = 0; m < kNeuronTiles; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int e = 8 * k + col + 4 * (i / 2), j = 16 * m + row + 8 * (i % 2);
          d[m][i] = s.d1[e * kErrorStride + j] * (1.0f / 255.0f);
        }
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        if (!holds(g)) break;
        uint32_t b[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int e = min(8 * k + col + 4 * i, count - 1);
          b[i] = bits(byte_to_float(s.images[images + e * kPitch + 8 * g + row]));
        }
#pragma unroll
        for (int m = 0; m < kNeuronTiles; ++m) {
          float change[4] = {};
          product(change, d[m], b);
#pragma unroll
          for (int i = 0; i < 4; ++i) w[g][m][i] += change[i];
        }
      }
    }
  }

  s.parts[t] = valid ? 1.0f : 0.0f;
  barrier();
#pragma unroll
  for (int g = 0; g < kGroups; ++g)
#pragma unroll
    for (int m = 0; m < kNeuronTiles; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = 16 * m + row + 8 * (i / 2), p = 8 * (first + g) + 2 * col + i % 2;
        if (holds(g) && j < kHidden && p < kInputs) w1[j * kInputs + p] = w[g][m][i];
      }
  for (int i = t; i < kOutputs * kHidden; i += kThreads) w2[i] = s.w2[i / kHidden * kStride + i % kHidden];
  for (int i = t; i < kHidden; i += kThreads) b1[i] = s.b1[i];
  for (int i = t; i < kOutputs; i += kThreads) b2[i] = s.b2[i];
  if (t == 0) {
    int32_t all_valid = 1;
    for (int i = 0; i < kThreads; ++i) {
      if (s.parts[i] != 1.0f) all_valid = 0;
    }
    finite[network] = all_valid;
  }
}
// NOLINTEND(readability-function-cognitive-complexity)
