// This file is compiled for Armv8.2 with dot products: it includes nothing whose inline functions others might share.

#include <arm_neon.h>

#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/packed_product.h"

namespace fermata::kernels {
namespace {

// 16 lanes are four vectors of 4, and a quarter of each of the four vectors of 16 bytes.
constexpr int kParts = 4;

struct Lanes {
  float32x4_t part[kParts];
};

inline int8x16_t Load(const uint8_t* bytes) { return vreinterpretq_s8_u8(vld1q_u8(bytes)); }

inline float32x4_t LoadF16(const uint8_t* halves) {
  return vcvt_f32_f16(vld1_f16(reinterpret_cast<const __fp16*>(halves)));
}

inline float32x4_t LoadU8(const uint8_t* bytes) {
  uint32_t four;
  __builtin_memcpy(&four, bytes, sizeof(four));
  const uint8x8_t narrow = vreinterpret_u8_u32(vdup_n_u32(four));
  return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(narrow))));
}

// A block of 32 activations, from which products take four neighbours at a time.
struct Activations {
  explicit Activations(const int8_t* x) : half{vld1q_s8(x), vld1q_s8(x + 16)} {}

  int8x16_t half[2];
};

// sum + the products of 4 neighbours, of columns 4k.. of each of two vectors of 16.
template <int k>
inline int32x4_t AddProducts(int32x4_t sum, int8x16_t w, int8x16_t x) {
  return vdotq_laneq_s32(sum, w, x, k);
}

// The four products of 16 columns.
inline int32x4_t AddSixteen(int32x4_t sum, const int8x16_t* w, int8x16_t x) {
  sum = AddProducts<0>(sum, w[0], x);
  sum = AddProducts<1>(sum, w[1], x);
  sum = AddProducts<2>(sum, w[2], x);
  return AddProducts<3>(sum, w[3], x);
}

// Adds what an integer product of a block comes to.
inline void Accumulate(int32x4_t product, float32x4_t scale, const ActivationBlock& x, float32x4_t& sum) {
  sum = vfmaq_f32(sum, vcvtq_f32_s32(product), vmulq_n_f32(scale, x.scale));
}

// Quarter `part` of the values of a block.
template <bool five_bits>
inline void LoadNibbles(const uint8_t* block, int part, int8x16_t* low, int8x16_t* high) {
  uint8x16_t bits = vdupq_n_u8(0);
  if constexpr (five_bits) bits = vld1q_u8(block + 256 + part * 16);
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const uint8x16_t bytes = vld1q_u8(block + k * 64 + part * 16);
    uint8x16_t ones = vandq_u8(bytes, vdupq_n_u8(0xF));
    uint8x16_t others = vshrq_n_u8(bytes, 4);
    if constexpr (five_bits) {
      const uint8x16_t fifth = vdupq_n_u8(0x10);
      ones = vorrq_u8(ones, vandq_u8(vshlq_n_u8(bits, 4), fifth));
      others = vorrq_u8(others, vandq_u8(bits, fifth));
      bits = vshrq_n_u8(bits, 1);
    }
    low[k] = vreinterpretq_s8_u8(ones);
    high[k] = vreinterpretq_s8_u8(others);
  }
}

template <int kRows, bool five_bits, bool scaled>
inline void AddTile(NibblesLayout<five_bits, scaled>, const PackedTile& tile, Lanes* sums) {
  using Layout = NibblesLayout<five_bits, scaled>;
  const uint8_t* block = tile.group;
  const uint8_t* header = nullptr;
  const int8_t* x = tile.values;
  const ActivationBlock* of_x = tile.blocks;
  for (int64_t b = 0; b < tile.columns / 32;
       ++b, block += Layout::kBlockBytes, x += tile.rows_per_tile * 32, of_x += tile.rows_per_tile) {
    if (scaled && b % kSharingBlocks == 0) {
      header = block;
      block += Layout::kHeaderBytes;
    }
    const uint8_t* scales =
        scaled ? header + Layout::kFactors + b % kSharingBlocks * Layout::kFactorBytes : block + Layout::kValueBytes;
    const uint8_t* minima = scales + Layout::kToMinima;
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part) {
      int8x16_t low[4], high[4];
      LoadNibbles<five_bits>(block, part, low, high);
      float32x4_t scale, minimum;
      if constexpr (scaled) {
        scale = vmulq_f32(LoadF16(header + part * 8), LoadU8(scales + part * 4));
        minimum = vmulq_f32(LoadF16(header + 32 + part * 8), LoadU8(minima + part * 4));
      } else {
        scale = LoadF16(scales + part * 8);
        minimum = LoadF16(minima + part * 8);
      }
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const Activations of(x + r * 32);
        // Integers: their order does not matter.
        const int32x4_t product = AddSixteen(AddSixteen(vdupq_n_s32(0), low, of.half[0]), high, of.half[1]);
        float32x4_t& sum = sums[r].part[part];
        Accumulate(product, scale, of_x[r], sum);
        sum = vfmaq_n_f32(sum, minimum, of_x[r].scaled_sum);
      }
    }
  }
}

// Quarter `part` of the values of a block, four columns each, with their signs.
template <bool table>
inline void LoadBytes(const uint8_t* block, int part, int8x16_t* bytes) {
  if constexpr (table) {
    int8x16_t nibbles[8];
    LoadNibbles<false>(block, part, nibbles, nibbles + 4);
    const int8x16_t values = vld1q_s8(kIq4NlValues);
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) bytes[k] = vqtbl1q_s8(values, vreinterpretq_u8_s8(nibbles[k]));
  } else {
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) bytes[k] = veorq_s8(Load(block + k * 64 + part * 16), vdupq_n_s8(-128));
  }
}

template <int kRows, bool table>
inline void AddTile(BytesLayout<table>, const PackedTile& tile, Lanes* sums) {
  using Layout = BytesLayout<table>;
  const uint8_t* block = tile.group;
  const uint8_t* header = nullptr;
  const int8_t* x = tile.values;
  const ActivationBlock* of_x = tile.blocks;
  for (int64_t b = 0; b < tile.columns / 32;
       ++b, block += Layout::kBlockBytes, x += tile.rows_per_tile * 32, of_x += tile.rows_per_tile) {
    if (b % kSharingBlocks == 0) {
      header = block;
      block += Layout::kHeaderBytes;
    }
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part) {
      int8x16_t bytes[8];
      LoadBytes<table>(block, part, bytes);
      const float32x4_t scale = LoadF16(header + b % kSharingBlocks * Layout::kScaleBytes + part * 8);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const Activations of(x + r * 32);
        const int32x4_t product = AddSixteen(AddSixteen(vdupq_n_s32(0), bytes, of.half[0]), bytes + 4, of.half[1]);
        Accumulate(product, scale, of_x[r], sums[r].part[part]);
      }
    }
  }
}

template <int kRows>
inline void AddTile(SixBitsLayout, const PackedTile& tile, Lanes* sums) {
  const uint8_t* block = tile.group;
  for (int64_t b = 0; b < tile.columns / 16; ++b, block += SixBitsLayout::kBlockBytes) {
    const int8_t* x = tile.values + b / 2 * tile.rows_per_tile * 32 + b % 2 * 16;
    const ActivationBlock* of_x = tile.blocks + b / 2 * tile.rows_per_tile;
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part) {
      int8x16_t bytes[4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) bytes[k] = Load(block + k * 64 + part * 16);
      const float32x4_t scale = vld1q_f32(reinterpret_cast<const float*>(block + 256) + part * 4);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const int32x4_t offset = vdupq_n_s32(-32 * of_x[r].sums[b % 2]);
        Accumulate(AddSixteen(offset, bytes, vld1q_s8(x + r * 32)), scale, of_x[r], sums[r].part[part]);
      }
    }
  }
}

template <int kRows>
void Tile(const PackedTile& tile) {
  Lanes sums[kRows];
  for (Lanes& lanes : sums) {
    for (float32x4_t& part : lanes.part) part = vdupq_n_f32(0.0f);
  }
  WithForm(tile.form, [&](auto layout) { AddTile<kRows>(layout, tile, sums); });
  for (int r = 0; r < kRows; ++r) {
    for (int part = 0; part < kParts; ++part) vst1q_f32(tile.output[r] + part * 4, sums[r].part[part]);
  }
}

}  // namespace

void PackedProductNeon(const PackedTile& tile) {
  // Registers hold the sums of four rows.
  static constexpr PackedProduct kTiles[] = {Tile<1>, Tile<2>, Tile<3>, Tile<4>};
  MultiplyByFours(tile, kTiles);
}

}  // namespace fermata::kernels
