// This file is compiled for AVX-512 with VNNI: it includes nothing whose inline functions others might share.

#include <immintrin.h>

#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/packed_product.h"

namespace fermata::kernels {
namespace {

inline __m512i Broadcast4(const int8_t* x) { return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(x)); }

inline __m512 LoadF16(const uint8_t* halves) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves)));
}

inline __m512 LoadU8(const uint8_t* bytes) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))));
}

// Adds what an integer product of a block comes to.
inline void Accumulate(__m512i product, __m512 scale, const ActivationBlock& x, __m512& sum) {
  sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(product), _mm512_mul_ps(scale, _mm512_set1_ps(x.scale)), sum);
}

// Asks for a block that comes kAhead bytes later: groups follow each other, and with several rows they and the
// activations are more than the first cache holds. One row alone is held up by nothing but memory.
template <int kRows, int kBlockBytes>
inline void Foresee(const uint8_t* block) {
  constexpr int kAhead = 5120;
  if constexpr (kRows > 1) {
#pragma GCC unroll 16
    for (int at = 0; at < kBlockBytes; at += 64) _mm_prefetch(block + kAhead + at, _MM_HINT_T0);
  }
}

template <int kRows, bool five_bits, bool scaled>
inline void AddTile(NibblesLayout<five_bits, scaled>, const PackedTile& tile, __m512* sums) {
  using Layout = NibblesLayout<five_bits, scaled>;
  const __m512i mask = _mm512_set1_epi8(0xF);
  const uint8_t* block = tile.group;
  const int8_t* x = tile.values;
  const ActivationBlock* of_x = tile.blocks;
  const uint8_t* const end = block + Layout::Bytes(tile.columns);
  __m512 outer_scale = _mm512_setzero_ps(), outer_minimum = _mm512_setzero_ps();
  const uint8_t* factors = nullptr;
  for (int place = 0; block < end;
       ++place, block += Layout::kBlockBytes, x += tile.rows_per_tile * 32, of_x += tile.rows_per_tile) {
    if (scaled && place % kSharingBlocks == 0) {
      Foresee<kRows, Layout::kHeaderBytes>(block);
      outer_scale = LoadF16(block);
      outer_minimum = LoadF16(block + 2 * kPackedRows);
      factors = block + Layout::kFactors;
      block += Layout::kHeaderBytes;
    }
    Foresee<kRows, Layout::kBlockBytes>(block);
    __m512i low[4], high[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      const __m512i bytes = _mm512_loadu_si512(block + k * 64);
      low[k] = _mm512_and_si512(bytes, mask);
      high[k] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask);
    }
    if constexpr (five_bits) {
      const __m512i fifth = _mm512_set1_epi8(0x10);
      __m512i bits = _mm512_loadu_si512(block + 256);
      for (int k = 0; k < 4; ++k, bits = _mm512_srli_epi16(bits, 1)) {
        low[k] = _mm512_or_si512(low[k], _mm512_and_si512(_mm512_slli_epi16(bits, 4), fifth));
        high[k] = _mm512_or_si512(high[k], _mm512_and_si512(bits, fifth));
      }
    }
    const uint8_t* scales =
        scaled ? factors + place % kSharingBlocks * Layout::kFactorBytes : block + Layout::kValueBytes;
    const uint8_t* minima = scales + Layout::kToMinima;
    const __m512 scale = scaled ? _mm512_mul_ps(outer_scale, LoadU8(scales)) : LoadF16(scales);
    const __m512 minimum = scaled ? _mm512_mul_ps(outer_minimum, LoadU8(minima)) : LoadF16(minima);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      // Integers: their order does not matter.
      __m512i product = _mm512_setzero_si512();
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        product = _mm512_dpbusd_epi32(product, low[k], Broadcast4(x + r * 32 + k * 4));
        product = _mm512_dpbusd_epi32(product, high[k], Broadcast4(x + r * 32 + 16 + k * 4));
      }
      Accumulate(product, scale, of_x[r], sums[r]);
      sums[r] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(of_x[r].scaled_sum), sums[r]);
    }
  }
}

// Four columns each of the values of a block, as 0 to 255.
template <bool table>
inline void LoadBytes(const uint8_t* block, __m512i* bytes) {
  const __m512i mask = _mm512_set1_epi8(0xF);
  const __m128i table_values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kIq4NlValues));
  const __m512i values = _mm512_broadcast_i32x4(_mm_xor_si128(table_values, _mm_set1_epi8(-128)));
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) {
    if constexpr (table) {
      const __m512i nibbles = _mm512_loadu_si512(block + k % 4 * 64);
      bytes[k] = _mm512_shuffle_epi8(values, _mm512_and_si512(k < 4 ? nibbles : _mm512_srli_epi16(nibbles, 4), mask));
    } else {
      bytes[k] = _mm512_loadu_si512(block + k * 64);
    }
  }
}

template <int kRows, bool table>
inline void AddTile(BytesLayout<table>, const PackedTile& tile, __m512* sums) {
  using Layout = BytesLayout<table>;
  const uint8_t* block = tile.group;
  const uint8_t* scales = nullptr;
  const int8_t* x = tile.values;
  const ActivationBlock* of_x = tile.blocks;
  const uint8_t* const end = block + Layout::Bytes(tile.columns);
  for (int place = 0; block < end;
       ++place, block += Layout::kBlockBytes, x += tile.rows_per_tile * 32, of_x += tile.rows_per_tile) {
    if (place % kSharingBlocks == 0) {
      Foresee<kRows, Layout::kHeaderBytes>(block);
      scales = block;
      block += Layout::kHeaderBytes;
    }
    Foresee<kRows, Layout::kBlockBytes>(block);
    __m512i bytes[8];
    LoadBytes<table>(block, bytes);
    const __m512 scale = LoadF16(scales + place % kSharingBlocks * Layout::kScaleBytes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      __m512i product = _mm512_set1_epi32(-128 * (of_x[r].sums[0] + of_x[r].sums[1]));
#pragma GCC unroll 8
      for (int k = 0; k < 8; ++k) product = _mm512_dpbusd_epi32(product, bytes[k], Broadcast4(x + r * 32 + k * 4));
      Accumulate(product, scale, of_x[r], sums[r]);
    }
  }
}

template <int kRows>
inline void AddTile(SixBitsLayout, const PackedTile& tile, __m512* sums) {
  const uint8_t* block = tile.group;
  for (int64_t b = 0; b < tile.columns / 16; ++b, block += SixBitsLayout::kBlockBytes) {
    Foresee<kRows, SixBitsLayout::kBlockBytes>(block);
    __m512i bytes[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) bytes[k] = _mm512_loadu_si512(block + k * 64);
    const __m512 scale = _mm512_loadu_ps(reinterpret_cast<const float*>(block + 256));
    const int8_t* x = tile.values + b / 2 * tile.rows_per_tile * 32 + b % 2 * 16;
    const ActivationBlock* of_x = tile.blocks + b / 2 * tile.rows_per_tile;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      __m512i product = _mm512_set1_epi32(-32 * of_x[r].sums[b % 2]);
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) product = _mm512_dpbusd_epi32(product, bytes[k], Broadcast4(x + r * 32 + k * 4));
      Accumulate(product, scale, of_x[r], sums[r]);
    }
  }
}

template <int kRows>
void Tile(const PackedTile& tile) {
  __m512 sums[kRows];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
  WithForm(tile.form, [&](auto layout) { AddTile<kRows>(layout, tile, sums); });
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) _mm512_storeu_ps(tile.output[r], sums[r]);
}

}  // namespace

void PackedProductAvx512Vnni(const PackedTile& tile) {
  static constexpr PackedProduct kTiles[] = {Tile<1>, Tile<2>, Tile<3>, Tile<4>, Tile<5>, Tile<6>, Tile<7>, Tile<8>};
  static_assert(sizeof(kTiles) / sizeof(kTiles[0]) == kRowTile);
  kTiles[tile.row_count - 1](tile);
}

}  // namespace fermata::kernels
