// This file is compiled for AVX2: it includes nothing whose inline functions others might share.

#include <immintrin.h>

#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/packed_product.h"

namespace fermata::kernels {
namespace {

// 16 lanes as two vectors of 8.
struct Lanes {
  __m256 part[2];
};

inline __m256i Broadcast4(const int8_t* x) { return _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(x)); }

inline __m256 LoadF16(const uint8_t* halves) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves)));
}

inline __m256 LoadU8(const uint8_t* bytes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes))));
}

inline __m256i Load(const uint8_t* bytes) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)); }

// Sums of 4 neighbouring products. REQUIRES: w at most 128, so that pairs of products fit in 16 bits.
inline __m256i Multiply(__m256i w, __m256i x) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1));
}

// The same for a w with a sign, which goes over to x. REQUIRES: no x is -128.
inline __m256i MultiplySigned(__m256i w, __m256i x) { return Multiply(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)); }

inline void Accumulate(__m256i product, __m256 scale, __m256& sum) {
  sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(product), scale, sum);
}

inline const int8_t* X(const PackedTile& tile, int64_t block, int row) {
  return tile.values + (block * tile.rows_per_tile + row) * 32;
}

inline const ActivationBlock& OfX(const PackedTile& tile, int64_t block, int row) {
  return tile.blocks[block * tile.rows_per_tile + row];
}

// Half `part` of the values of a block.
template <bool five_bits>
inline void LoadNibbles(const uint8_t* block, int part, __m256i* low, __m256i* high) {
  const __m256i mask = _mm256_set1_epi8(0xF);
  for (int k = 0; k < 4; ++k) {
    const __m256i bytes = Load(block + k * 64 + part * 32);
    low[k] = _mm256_and_si256(bytes, mask);
    high[k] = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
  }
  if constexpr (five_bits) {
    const __m256i fifth = _mm256_set1_epi8(0x10);
    __m256i bits = Load(block + 256 + part * 32);
    for (int k = 0; k < 4; ++k, bits = _mm256_srli_epi16(bits, 1)) {
      low[k] = _mm256_or_si256(low[k], _mm256_and_si256(_mm256_slli_epi16(bits, 4), fifth));
      high[k] = _mm256_or_si256(high[k], _mm256_and_si256(bits, fifth));
    }
  }
}

// Sums of 4 neighbouring products of 32 columns. Eight products of nibbles fit in 16 bits together, four of five bits:
// they are widened once or twice.
template <bool five_bits>
inline __m256i MultiplyNibbles(const __m256i* low, const __m256i* high, const int8_t* x) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i words = _mm256_setzero_si256();
  __m256i more_words = _mm256_setzero_si256();
  for (int k = 0; k < 4; ++k) {
    words = _mm256_add_epi16(words, _mm256_maddubs_epi16(low[k], Broadcast4(x + k * 4)));
    __m256i& others = five_bits ? more_words : words;
    others = _mm256_add_epi16(others, _mm256_maddubs_epi16(high[k], Broadcast4(x + 16 + k * 4)));
  }
  const __m256i product = _mm256_madd_epi16(words, ones);
  return five_bits ? _mm256_add_epi32(product, _mm256_madd_epi16(more_words, ones)) : product;
}

template <int kRows, bool five_bits, bool scaled>
inline void AddTile(NibblesLayout<five_bits, scaled>, const PackedTile& tile, Lanes* sums) {
  using Layout = NibblesLayout<five_bits, scaled>;
  const uint8_t* block = tile.group;
  const uint8_t* header = nullptr;
  for (int64_t b = 0; b < tile.columns / 32; ++b, block += Layout::kBlockBytes) {
    if (scaled && b % kSharingBlocks == 0) {
      header = block;
      block += Layout::kHeaderBytes;
    }
    const uint8_t* scales =
        scaled ? header + Layout::kFactors + b % kSharingBlocks * Layout::kFactorBytes : block + Layout::kValueBytes;
    const uint8_t* minima = scales + Layout::kToMinima;
    for (int part = 0; part < 2; ++part) {
      __m256i low[4], high[4];
      LoadNibbles<five_bits>(block, part, low, high);
      __m256 scale, minimum;
      if constexpr (scaled) {
        scale = _mm256_mul_ps(LoadF16(header + part * 16), LoadU8(scales + part * 8));
        minimum = _mm256_mul_ps(LoadF16(header + 32 + part * 16), LoadU8(minima + part * 8));
      } else {
        scale = LoadF16(scales + part * 16);
        minimum = LoadF16(minima + part * 16);
      }
      for (int r = 0; r < kRows; ++r) {
        const int8_t* x = X(tile, b, r);
        const ActivationBlock& of_x = OfX(tile, b, r);
        const __m256i product = MultiplyNibbles<five_bits>(low, high, x);
        __m256& sum = sums[r].part[part];
        Accumulate(product, _mm256_mul_ps(scale, _mm256_set1_ps(of_x.scale)), sum);
        sum = _mm256_fmadd_ps(minimum, _mm256_set1_ps(of_x.scaled_sum), sum);
      }
    }
  }
}

// Half `part` of the values of a block, four columns each, with their signs.
template <bool table>
inline void LoadBytes(const uint8_t* block, int part, __m256i* bytes) {
  const __m256i mask = _mm256_set1_epi8(0xF);
  const __m256i values = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kIq4NlValues)));
  for (int k = 0; k < 8; ++k) {
    if constexpr (table) {
      const __m256i nibbles = Load(block + k % 4 * 64 + part * 32);
      bytes[k] = _mm256_shuffle_epi8(values, _mm256_and_si256(k < 4 ? nibbles : _mm256_srli_epi16(nibbles, 4), mask));
    } else {
      bytes[k] = _mm256_xor_si256(Load(block + k * 64 + part * 32), _mm256_set1_epi8(-128));
    }
  }
}

template <int kRows, bool table>
inline void AddTile(BytesLayout<table>, const PackedTile& tile, Lanes* sums) {
  using Layout = BytesLayout<table>;
  const uint8_t* block = tile.group;
  const uint8_t* header = nullptr;
  for (int64_t b = 0; b < tile.columns / 32; ++b, block += Layout::kBlockBytes) {
    if (b % kSharingBlocks == 0) {
      header = block;
      block += Layout::kHeaderBytes;
    }
    for (int part = 0; part < 2; ++part) {
      __m256i bytes[8];
      LoadBytes<table>(block, part, bytes);
      const __m256 scale = LoadF16(header + b % kSharingBlocks * Layout::kScaleBytes + part * 16);
      for (int r = 0; r < kRows; ++r) {
        const int8_t* x = X(tile, b, r);
        __m256i product = _mm256_setzero_si256();
        for (int k = 0; k < 8; ++k)
          product = _mm256_add_epi32(product, MultiplySigned(bytes[k], Broadcast4(x + k * 4)));
        Accumulate(product, _mm256_mul_ps(scale, _mm256_set1_ps(OfX(tile, b, r).scale)), sums[r].part[part]);
      }
    }
  }
}

template <int kRows>
inline void AddTile(SixBitsLayout, const PackedTile& tile, Lanes* sums) {
  const uint8_t* block = tile.group;
  for (int64_t b = 0; b < tile.columns / 16; ++b, block += SixBitsLayout::kBlockBytes) {
    for (int part = 0; part < 2; ++part) {
      const __m256 scale = _mm256_loadu_ps(reinterpret_cast<const float*>(block + 256) + part * 8);
      for (int r = 0; r < kRows; ++r) {
        const int8_t* x = X(tile, b / 2, r) + b % 2 * 16;
        const ActivationBlock& of_x = OfX(tile, b / 2, r);
        __m256i product = _mm256_set1_epi32(-32 * of_x.sums[b % 2]);
        for (int k = 0; k < 4; ++k) {
          product = _mm256_add_epi32(product, Multiply(Load(block + k * 64 + part * 32), Broadcast4(x + k * 4)));
        }
        Accumulate(product, _mm256_mul_ps(scale, _mm256_set1_ps(of_x.scale)), sums[r].part[part]);
      }
    }
  }
}

template <int kRows>
void Tile(const PackedTile& tile) {
  Lanes sums[kRows];
  for (Lanes& lanes : sums) lanes.part[0] = lanes.part[1] = _mm256_setzero_ps();
  WithForm(tile.form, [&](auto layout) { AddTile<kRows>(layout, tile, sums); });
  for (int r = 0; r < kRows; ++r) {
    _mm256_storeu_ps(tile.output[r], sums[r].part[0]);
    _mm256_storeu_ps(tile.output[r] + 8, sums[r].part[1]);
  }
}

}  // namespace

void PackedProductAvx2(const PackedTile& tile) {
  // Registers hold the sums of four rows.
  static constexpr PackedProduct kTiles[] = {Tile<1>, Tile<2>, Tile<3>, Tile<4>};
  MultiplyByFours(tile, kTiles);
}

}  // namespace fermata::kernels
