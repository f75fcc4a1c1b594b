// Activations in 8 bits: what the fast products multiply quantised weights with.

#ifndef FERMATA_KERNELS_CPU_QUANTIZED_ROWS_H_
#define FERMATA_KERNELS_CPU_QUANTIZED_ROWS_H_

#include <cstdint>
#include <vector>

namespace fermata::kernels {

inline constexpr int kActivationBlock = 32;

// The most rows of activations that a product takes at once: so many sums fit in registers.
inline constexpr int kRowTile = 8;

// A block of 32 activations: x[i] is about scale * values[i], with whole values from -127 to 127; a block with a value
// that is no number has the scale NaN. Sums are of the first and of the second 16 values, for weights with an offset.
struct ActivationBlock {
  float scale;
  float scaled_sum;  // scale * (sums[0] + sums[1]), for weights with a minimum
  int32_t sums[2];
};

// Rows in blocks of 32 columns, so laid out that a product reads from front to back: tiles of rows_per_tile() rows, in
// each the blocks in order, in each block the rows. Owns its memory and keeps it from use to use.
class QuantizedRows {
 public:
  // Makes room. Contents are undefined until each row is set. REQUIRES: columns is a multiple of 32.
  void Resize(int64_t rows, int64_t columns);

  // One row alone is a tile of its own, else a tile has kRowTile.
  int rows_per_tile() const { return rows_per_tile_; }
  int64_t columns() const { return columns_; }

  // Of a tile: [columns / 32][rows_per_tile()], of values [32] each.
  const int8_t* values(int64_t tile) const { return values_.data() + tile * rows_per_tile_ * columns_; }
  const ActivationBlock* blocks(int64_t tile) const {
    return blocks_.data() + tile * rows_per_tile_ * (columns_ / kActivationBlock);
  }

  // Where block `block` of a row is.
  int8_t* row_values(int64_t row, int64_t block) { return values_.data() + PlaceOf(row, block) * kActivationBlock; }
  ActivationBlock& row_block(int64_t row, int64_t block) { return blocks_[PlaceOf(row, block)]; }

 private:
  int64_t PlaceOf(int64_t row, int64_t block) const {
    const int64_t tile = row / rows_per_tile_;
    return (tile * (columns_ / kActivationBlock) + block) * rows_per_tile_ + row % rows_per_tile_;
  }

  int64_t columns_ = 0;
  int rows_per_tile_ = 1;
  std::vector<int8_t> values_;
  std::vector<ActivationBlock> blocks_;
};

// Sets `count` blocks of a row, from block `first` on, from x [32 * count]. Rounds to nearest, ties to even. Plain C++;
// RowOps has the same for vectors, with the same results.
void QuantizeBlocks(const float* x, int64_t row, int64_t first, int64_t count, QuantizedRows& rows);

// Sets a row from x [columns].
void QuantizeRow(const float* x, int64_t row, QuantizedRows& rows);

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_QUANTIZED_ROWS_H_
