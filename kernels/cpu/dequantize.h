// From stored weights to float32: what the packed forms mean.

#ifndef FERMATA_KERNELS_CPU_DEQUANTIZE_H_
#define FERMATA_KERNELS_CPU_DEQUANTIZE_H_

#include <cstdint>

#include "kernels/weight_type.h"

namespace fermata::kernels {

// One superblock of Q6_K, taken apart: element i is scales[i / 16] * scale * values[i].
struct Q6KBlock {
  float scale;
  int8_t scales[16];
  int8_t values[256];  // -32 to 31
};
Q6KBlock UnpackQ6K(const uint8_t* block);

// One superblock of Q4_K or Q5_K: element i is scales[i / 32] * scale * values[i] - minima[i / 32] * minimum.
struct ScaledBlock {
  float scale;
  float minimum;
  uint8_t scales[8];  // below 64, as are minima
  uint8_t minima[8];
  uint8_t values[256];  // below 16 or 32
};
ScaledBlock UnpackQ4K(const uint8_t* block);
ScaledBlock UnpackQ5K(const uint8_t* block);

// The 32 values, below 32, of a block of Q5_0 or Q5_1: `high` has a bit for each element, then come their nibbles.
void UnpackFiveBits(const uint8_t* high, uint8_t* values);

// What the nibbles of IQ4_NL stand for.
inline constexpr int8_t kIq4NlValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// Writes the `view.columns` elements of row `row` to output, exactly as the form defines them (one rounding to float32
// each).
void DequantizeRow(const WeightView& view, int64_t row, float* output);

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_DEQUANTIZE_H_
