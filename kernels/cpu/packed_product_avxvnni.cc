// Dot products of 8-bit integers in vectors of 256 bits. This file is compiled twice, for the two encodings that
// processors have of the same instruction: AVX-VNNI's, and that of AVX-512 VL with VNNI. It includes nothing whose
// inline functions others might share.

#include <immintrin.h>

#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/packed_product.h"

namespace fermata::kernels {
namespace {

// 16 lanes as two vectors of 8.
struct Lanes {
  __m256 part[2];
};

// sum + the products of 4 neighbours, w from 0 to 255.
inline __m256i AddProducts(__m256i sum, __m256i w, __m256i x) {
#if defined(__AVXVNNI__)
  return _mm256_dpbusd_avx_epi32(sum, w, x);
#else
  return _mm256_dpbusd_epi32(sum, w, x);
#endif
}

inline __m256i Broadcast4(const int8_t* x) { return _mm256_set1_epi32(*reinterpret_cast<const int32_t*>(x)); }

inline __m256 LoadF16(const uint8_t* halves) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves)));
}

inline __m256 LoadU8(const uint8_t* bytes) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes))));
}

inline __m256i Load(const uint8_t* bytes) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)); }

// Adds what an integer product of a block comes to.
inline void Accumulate(__m256i product, __m256 scale, const ActivationBlock& x, __m256& sum) {
  sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(product), _mm256_mul_ps(scale, _mm256_set1_ps(x.scale)), sum);
}

// Half `part` of the values of a block.
template <bool five_bits>
inline void LoadNibbles(const uint8_t* block, int part, __m256i* low, __m256i* high) {
  const __m256i mask = _mm256_set1_epi8(0xF);
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    const __m256i bytes = Load(block + k * 64 + part * 32);
    low[k] = _mm256_and_si256(bytes, mask);
    high[k] = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
  }
  if constexpr (five_bits) {
    const __m256i fifth = _mm256_set1_epi8(0x10);
    __m256i bits = Load(block + 256 + part * 32);
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k, bits = _mm256_srli_epi16(bits, 1)) {
      low[k] = _mm256_or_si256(low[k], _mm256_and_si256(_mm256_slli_epi16(bits, 4), fifth));
      high[k] = _mm256_or_si256(high[k], _mm256_and_si256(bits, fifth));
    }
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
#pragma GCC unroll 2
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
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        // Integers: their order does not matter.
        __m256i product = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) {
          product = AddProducts(product, low[k], Broadcast4(x + r * 32 + k * 4));
          product = AddProducts(product, high[k], Broadcast4(x + r * 32 + 16 + k * 4));
        }
        __m256& sum = sums[r].part[part];
        Accumulate(product, scale, of_x[r], sum);
        sum = _mm256_fmadd_ps(minimum, _mm256_set1_ps(of_x[r].scaled_sum), sum);
      }
    }
  }
}

// Half `part` of the values of a block, four columns each, as 0 to 255.
template <bool table>
inline void LoadBytes(const uint8_t* block, int part, __m256i* bytes) {
  const __m256i mask = _mm256_set1_epi8(0xF);
  const __m128i table_values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kIq4NlValues));
  const __m256i values = _mm256_broadcastsi128_si256(_mm_xor_si128(table_values, _mm_set1_epi8(-128)));
#pragma GCC unroll 8
  for (int k = 0; k < 8; ++k) {
    if constexpr (table) {
      const __m256i nibbles = Load(block + k % 4 * 64 + part * 32);
      bytes[k] = _mm256_shuffle_epi8(values, _mm256_and_si256(k < 4 ? nibbles : _mm256_srli_epi16(nibbles, 4), mask));
    } else {
      bytes[k] = Load(block + k * 64 + part * 32);
    }
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
#pragma GCC unroll 2
    for (int part = 0; part < 2; ++part) {
      __m256i bytes[8];
      LoadBytes<table>(block, part, bytes);
      const __m256 scale = LoadF16(header + b % kSharingBlocks * Layout::kScaleBytes + part * 16);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        __m256i product = _mm256_set1_epi32(-128 * (of_x[r].sums[0] + of_x[r].sums[1]));
#pragma GCC unroll 8
        for (int k = 0; k < 8; ++k) product = AddProducts(product, bytes[k], Broadcast4(x + r * 32 + k * 4));
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
#pragma GCC unroll 2
    for (int part = 0; part < 2; ++part) {
      __m256i bytes[4];
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) bytes[k] = Load(block + k * 64 + part * 32);
      const __m256 scale = _mm256_loadu_ps(reinterpret_cast<const float*>(block + 256) + part * 8);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        __m256i product = _mm256_set1_epi32(-32 * of_x[r].sums[b % 2]);
#pragma GCC unroll 4
        for (int k = 0; k < 4; ++k) product = AddProducts(product, bytes[k], Broadcast4(x + r * 32 + k * 4));
        Accumulate(product, scale, of_x[r], sums[r].part[part]);
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

#if defined(__AVXVNNI__)
void PackedProductAvxVnni(const PackedTile& tile) {
#else
void PackedProductAvx512VlVnni(const PackedTile& tile) {
#endif
  // Registers hold the sums of four rows.
  static constexpr PackedProduct kTiles[] = {Tile<1>, Tile<2>, Tile<3>, Tile<4>};
  MultiplyByFours(tile, kTiles);
}

}  // namespace fermata::kernels
