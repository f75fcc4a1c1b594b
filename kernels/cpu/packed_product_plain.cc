#include <cmath>
#include <cstring>

#include "kernels/cpu/dequantize.h"
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

// Block `index` of a row.
template <bool five_bits, bool scaled>
void AddBlock(NibblesLayout<five_bits, scaled>, const uint8_t* group, int64_t index, const int8_t* x,
              const ActivationBlock& of_x, float* output) {
  using Layout = NibblesLayout<five_bits, scaled>;
  // What stands before the last 8 blocks; in other forms that is nothing.
  const int64_t place = index % kSharingBlocks;
  const uint8_t* header =
      group + index / kSharingBlocks * (kSharingBlocks * Layout::kBlockBytes + Layout::kHeaderBytes);
  const uint8_t* block = header + Layout::kHeaderBytes + place * Layout::kBlockBytes;
  int32_t sums[kPackedRows] = {};
  int32_t high_sums[kPackedRows] = {};
  for (int piece = 0; piece < 4; ++piece) {
    MultiplyPiece(block + piece * 64, 0, 0xF, x + piece * 4, sums);
    MultiplyPiece(block + piece * 64, 4, 0xF, x + 16 + piece * 4, sums);
    if (!five_bits) continue;
    MultiplyPiece(block + 256, piece, 1, x + piece * 4, high_sums);
    MultiplyPiece(block + 256, 4 + piece, 1, x + 16 + piece * 4, high_sums);
  }
  const auto f16 = [](const uint8_t* halves, int lane) { return F16ToFloat(LoadU16(halves + lane * 2)); };
  const uint8_t* scales =
      scaled ? header + Layout::kFactors + place * Layout::kFactorBytes : block + Layout::kValueBytes;
  const uint8_t* minima = scales + Layout::kToMinima;
  for (int lane = 0; lane < kPackedRows; ++lane) {
    const float scale = scaled ? f16(header, lane) * static_cast<float>(scales[lane]) : f16(scales, lane);
    const float minimum =
        scaled ? f16(header + 2 * kPackedRows, lane) * static_cast<float>(minima[lane]) : f16(minima, lane);
    const float product = static_cast<float>(sums[lane] + 16 * high_sums[lane]);
    output[lane] = std::fma(product, scale * of_x.scale, output[lane]);
    output[lane] = std::fma(minimum, of_x.scaled_sum, output[lane]);
  }
}

// The same, of values that nibbles stand for.
void MultiplyTablePiece(const uint8_t* bytes, int shift, const int8_t* x, int32_t* sums) {
  for (int lane = 0; lane < kPackedRows; ++lane) {
    for (int c = 0; c < 4; ++c) sums[lane] += kIq4NlValues[(bytes[lane * 4 + c] >> shift) & 0xF] * x[c];
  }
}

// Block `index` of a row.
template <bool table>
void AddBlock(BytesLayout<table>, const uint8_t* group, int64_t index, const int8_t* x, const ActivationBlock& of_x,
              float* output) {
  using Layout = BytesLayout<table>;
  const int64_t place = index % kSharingBlocks;
  const uint8_t* header =
      group + index / kSharingBlocks * (kSharingBlocks * Layout::kBlockBytes + Layout::kHeaderBytes);
  const uint8_t* block = header + Layout::kHeaderBytes + place * Layout::kBlockBytes;
  int32_t sums[kPackedRows] = {};
  for (int piece = 0; table && piece < 4; ++piece) {
    MultiplyTablePiece(block + piece * 64, 0, x + piece * 4, sums);
    MultiplyTablePiece(block + piece * 64, 4, x + 16 + piece * 4, sums);
  }
  for (int piece = 0; !table && piece < 8; ++piece) MultiplyPiece(block + piece * 64, 0, 0xFF, x + piece * 4, sums);
  const int32_t offset = table ? 0 : 128 * (of_x.sums[0] + of_x.sums[1]);
  const uint8_t* scales = header + place * Layout::kScaleBytes;
  for (int lane = 0; lane < kPackedRows; ++lane) {
    const float scale = F16ToFloat(LoadU16(scales + lane * 2)) * of_x.scale;
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

void AddBlock(SixBitsLayout layout, const uint8_t* group, int64_t index, const int8_t* x, const ActivationBlock& of_x,
              float* output) {
  const uint8_t* block = group + index * 2 * layout.kBlockBytes;
  SixBitsBlock(block, x, of_x.scale, of_x.sums[0], output);
  SixBitsBlock(block + layout.kBlockBytes, x + 16, of_x.scale, of_x.sums[1], output);
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
      WithForm(tile.form, [&](auto layout) { AddBlock(layout, tile.group, block, x, of_x, output); });
    }
  }
}

}  // namespace fermata::kernels
