#include <cmath>
#include <cstring>

#include "kernels/cpu/half.h"
#include "kernels/cpu/packed_product.h"

namespace fermata::kernels {
namespace {

// The integer products of 4 columns: `bytes` is one piece of 64, `shift` takes the nibble wanted.
void MultiplyPiece(const uint8_t* bytes, int shift, int mask, const int8_t* x, int32_t* sums) {
  for (int lane = 0; lane < kPackedRows; ++lane) {
    for (int c = 0; c < 4; ++c) sums[lane] += ((bytes[lane * 4 + c] >> shift) & mask) * x[c];
  }
}

void NibblesBlock(const uint8_t* block, const int8_t* x, const ActivationBlock& of_x, float* output) {
  int32_t sums[kPackedRows] = {};
  for (int piece = 0; piece < 4; ++piece) {
    MultiplyPiece(block + piece * 64, 0, 0xF, x + piece * 4, sums);
    MultiplyPiece(block + piece * 64, 4, 0xF, x + 16 + piece * 4, sums);
  }
  for (int lane = 0; lane < kPackedRows; ++lane) {
    const float scale = F16ToFloat(LoadU16(block + 256 + lane * 2)) * of_x.scale;
    const float minimum = F16ToFloat(LoadU16(block + 288 + lane * 2));
    output[lane] = std::fma(static_cast<float>(sums[lane]), scale, output[lane]);
    output[lane] = std::fma(minimum, of_x.scaled_sum, output[lane]);
  }
}

void BytesBlock(const uint8_t* block, const int8_t* x, const ActivationBlock& of_x, float* output) {
  int32_t sums[kPackedRows] = {};
  for (int piece = 0; piece < 8; ++piece) MultiplyPiece(block + piece * 64, 0, 0xFF, x + piece * 4, sums);
  const int32_t offset = 128 * (of_x.sums[0] + of_x.sums[1]);
  for (int lane = 0; lane < kPackedRows; ++lane) {
    const float scale = F16ToFloat(LoadU16(block + 512 + lane * 2)) * of_x.scale;
    output[lane] = std::fma(static_cast<float>(sums[lane] - offset), scale, output[lane]);
  }
}

void SixBitsBlock(const uint8_t* block, const int8_t* x, float x_scale, int32_t x_sum, float* output) {
  int32_t sums[kPackedRows] = {};
  for (int piece = 0; piece < 4; ++piece) MultiplyPiece(block + piece * 64, 0, 0xFF, x + piece * 4, sums);
  for (int lane = 0; lane < kPackedRows; ++lane) {
    float scale;
    std::memcpy(&scale, block + 256 + lane * 4, sizeof(scale));
    output[lane] = std::fma(static_cast<float>(sums[lane] - 32 * x_sum), scale * x_scale, output[lane]);
  }
}

}  // namespace

void PackedProductPlain(const PackedTile& tile) {
  for (int row = 0; row < tile.row_count; ++row) {
    float* output = tile.output[row];
    for (int lane = 0; lane < kPackedRows; ++lane) output[lane] = 0.0f;
    for (int64_t block = 0; block < tile.columns / 32; ++block) {
      const int64_t place = block * tile.rows_per_tile + row;
      const int8_t* x = tile.values + place * 32;
      const ActivationBlock& of_x = tile.blocks[place];
      switch (tile.form) {
        case PackedForm::kNibbles:
          NibblesBlock(tile.group + block * kNibblesBlockBytes, x, of_x, output);
          break;
        case PackedForm::kBytes:
          BytesBlock(tile.group + block * kBytesBlockBytes, x, of_x, output);
          break;
        case PackedForm::kSixBits: {
          const uint8_t* weights = tile.group + block * 2 * kSixBitsBlockBytes;
          SixBitsBlock(weights, x, of_x.scale, of_x.sums[0], output);
          SixBitsBlock(weights + kSixBitsBlockBytes, x + 16, of_x.scale, of_x.sums[1], output);
          break;
        }
      }
    }
  }
}

}  // namespace fermata::kernels
