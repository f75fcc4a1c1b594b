// Activations in 8 bits: what the fast products multiply quantised weights with.

#ifndef FERMATA_KERNELS_CPU_QUANTIZED_ROWS_H_
#define FERMATA_KERNELS_CPU_QUANTIZED_ROWS_H_

#include <cstdint>
#include <vector>

namespace fermata::kernels {

inline constexpr int kActivationBlock = 32;

// Rows in blocks of 32: x[i] is about scales[i / 32] * values[i]. Sums are over 16 values, for weights with an offset
// or a minimum. Owns its memory and keeps it from use to use.
struct QuantizedRows {
  int64_t columns = 0;
  std::vector<int8_t> values;  // [rows][columns], -127 to 127
  std::vector<float> scales;   // [rows][columns / 32]
  std::vector<int32_t> sums;   // [rows][columns / 16]

  const int8_t* row_values(int64_t row) const { return values.data() + row * columns; }
  const float* row_scales(int64_t row) const { return scales.data() + row * (columns / kActivationBlock); }
  const int32_t* row_sums(int64_t row) const { return sums.data() + row * (columns / 16); }

  // Makes room for `rows` rows. REQUIRES: columns is a multiple of 32.
  void Resize(int64_t rows, int64_t row_columns);

  // Fills row `row` from x [columns]. Rounds to nearest, ties to even; a block with a value that is no number becomes
  // NaN.
  void Quantize(const float* x, int64_t row);
};

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_QUANTIZED_ROWS_H_
