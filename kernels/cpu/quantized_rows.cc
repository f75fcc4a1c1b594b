#include "kernels/cpu/quantized_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fermata::kernels {
namespace {

constexpr float kLargest = 127.0f;

// Adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even, and compiles to vector instructions.
constexpr float kRounder = 12582912.0f;

}  // namespace

void QuantizedRows::Resize(int64_t rows, int64_t row_columns) {
  columns = row_columns;
  if (static_cast<int64_t>(values.size()) < rows * columns) values.resize(rows * columns);
  if (static_cast<int64_t>(scales.size()) < rows * columns / kActivationBlock)
    scales.resize(rows * columns / kActivationBlock);
  if (static_cast<int64_t>(sums.size()) < rows * columns / 16) sums.resize(rows * columns / 16);
}

void QuantizedRows::Quantize(const float* x, int64_t row) {
  int8_t* out = values.data() + row * columns;
  float* scale_out = scales.data() + row * (columns / kActivationBlock);
  int32_t* sum_out = sums.data() + row * (columns / 16);
  for (int64_t begin = 0; begin < columns; begin += kActivationBlock) {
    const float* block = x + begin;
    float largest = 0.0f;
    float check = 0.0f;  // becomes NaN if an element is infinite or NaN
    for (int i = 0; i < kActivationBlock; ++i) {
      largest = std::max(largest, std::fabs(block[i]));
      check += block[i] * 0.0f;
    }
    const bool finite = check == 0.0f;
    *scale_out++ = finite ? largest / kLargest : std::numeric_limits<float>::quiet_NaN();
    const float inverse = finite && largest > 0.0f ? kLargest / largest : 0.0f;
    int32_t integers[kActivationBlock];
    for (int i = 0; i < kActivationBlock; ++i) {
      const float scaled = finite ? block[i] * inverse : 0.0f;
      integers[i] = static_cast<int32_t>((scaled + kRounder) - kRounder);
    }
    for (int half = 0; half < 2; ++half) {
      int32_t sum = 0;
      for (int i = half * 16; i < half * 16 + 16; ++i) sum += integers[i];
      *sum_out++ = sum;
    }
    for (int i = 0; i < kActivationBlock; ++i) out[begin + i] = static_cast<int8_t>(integers[i]);
  }
}

}  // namespace fermata::kernels
