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

// Writes the `view.columns` elements of row `row` to output, exactly as the form defines them (one rounding to float32
// each).
void DequantizeRow(const WeightView& view, int64_t row, float* output);

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_DEQUANTIZE_H_
