// The three forms of inputs, each as rows of (column, value) pairs.
#pragma once

#include "descent.h"

namespace jaxgd::JAXGD_MACHINE {
namespace {

// A row of inputs, as (column, value) pairs.
struct SparseRow {
  const uint16_t* columns;
  const uint8_t* values;
  int64_t length;
  int64_t column(int64_t k) const { return columns[k]; }
  float value(int64_t k) const { return static_cast<float>(values[k]); }
};
template <typename T>
struct DenseRow {
  const T* values;
  int64_t length;
  int64_t column(int64_t k) const { return k; }
  float value(int64_t k) const { return static_cast<float>(values[k]); }
};

struct SparseRows {
  const Examples& examples;
  static constexpr float kScale = 1.0f / 255.0f;
  SparseRow operator()(int64_t r) const {
    const int64_t start = examples.starts[r];
    return {examples.columns + start, examples.values + start, examples.starts[r + 1] - start};
  }
  void prefetch(int64_t r) const {
    const int64_t start = examples.starts[r], end = examples.starts[r + 1];
    for (int64_t k = start; k < end; k += 32) __builtin_prefetch(examples.columns + k);
    for (int64_t k = start; k < end; k += 64) __builtin_prefetch(examples.values + k);
  }
};
struct ByteRows {
  const Examples& examples;
  int64_t width;
  static constexpr float kScale = 1.0f / 255.0f;
  DenseRow<uint8_t> operator()(int64_t r) const { return {examples.bytes + r * width, width}; }
  void prefetch(int64_t r) const {
    for (int64_t k = 0; k < width; k += 64) __builtin_prefetch(examples.bytes + r * width + k);
  }
};
struct FloatRows {
  const Examples& examples;
  int64_t width;
  static constexpr float kScale = 1.0f;
  DenseRow<float> operator()(int64_t r) const { return {examples.floats + r * width, width}; }
  void prefetch(int64_t r) const {
    for (int64_t k = 0; k < width; k += 16) __builtin_prefetch(examples.floats + r * width + k);
  }
};

// Calls f with the form that the inputs have.
template <typename F>
auto with_rows(const Examples& examples, int64_t width, F&& f) {
  if (examples.starts != nullptr) return f(SparseRows{examples});
  if (examples.bytes != nullptr) return f(ByteRows{examples, width});
  return f(FloatRows{examples, width});
}

}  // namespace
}  // namespace jaxgd::JAXGD_MACHINE
