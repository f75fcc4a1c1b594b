#include "kernels/cpu/quantized_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fermata::kernels {
namespace {

constexpr float kLargest = 127.0f;

}  // namespace

void QuantizedRows::Resize(int64_t rows, int64_t columns) {
  columns_ = columns;
  rows_per_tile_ = rows == 1 ? 1 : kRowTile;
  const int64_t whole = (rows + rows_per_tile_ - 1) / rows_per_tile_ * rows_per_tile_;
  if (static_cast<int64_t>(values_.size()) < whole * columns) values_.resize(whole * columns);
  const int64_t blocks = whole * columns / kActivationBlock;
  if (static_cast<int64_t>(blocks_.size()) < blocks) blocks_.resize(blocks);
}

void QuantizeRow(const float* x, int64_t row, QuantizedRows& rows) {
  QuantizeBlocks(x, row, 0, rows.columns() / kActivationBlock, rows);
}

void QuantizeBlocks(const float* x, int64_t row, int64_t first, int64_t count, QuantizedRows& rows) {
  for (int64_t b = first; b < first + count; ++b, x += kActivationBlock) {
    float largest = 0.0f;
    float check = 0.0f;  // becomes NaN if an element is infinite or NaN
    for (int i = 0; i < kActivationBlock; ++i) {
      largest = std::max(largest, std::fabs(x[i]));
      check += x[i] * 0.0f;
    }
    const bool finite = check == 0.0f;
    const float inverse = finite && largest > 0.0f ? kLargest / largest : 0.0f;
    ActivationBlock block = {.scale = finite ? largest / kLargest : std::numeric_limits<float>::quiet_NaN()};
    int8_t* values = rows.row_values(row, b);
    for (int i = 0; i < kActivationBlock; ++i) {
      values[i] = static_cast<int8_t>(finite ? std::nearbyint(x[i] * inverse) : 0.0f);
      block.sums[i / 16] += values[i];
    }
    block.scaled_sum = block.scale * static_cast<float>(block.sums[0] + block.sums[1]);
    rows.row_block(row, b) = block;
  }
}

}  // namespace fermata::kernels
