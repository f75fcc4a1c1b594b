// This file is compiled for AVX-512 with VNNI: it includes nothing whose inline functions others might share.

#include <immintrin.h>

#include "kernels/cpu/packed_product.h"

namespace fermata::kernels {
namespace {

inline __m512i Broadcast4(const int8_t* x) { return _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(x)); }

inline __m512 LoadF16(const uint8_t* halves) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(halves)));
}

template <int kRows>
inline void Nibbles(const PackedTile& tile, __m512* sums) {
  const __m512i mask = _mm512_set1_epi8(0xF);
  const uint8_t* block = tile.group;
  for (int64_t b = 0; b < tile.columns / 32; ++b, block += kNibblesBlockBytes) {
    __m512i low[4], high[4];
    for (int k = 0; k < 4; ++k) {
      const __m512i bytes = _mm512_loadu_si512(block + k * 64);
      low[k] = _mm512_and_si512(bytes, mask);
      high[k] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), mask);
    }
    const __m512 scale = LoadF16(block + 256);
    const __m512 minimum = LoadF16(block + 288);
    for (int r = 0; r < kRows; ++r) {
      const int8_t* x = tile.values[r] + b * 32;
      // Two chains, so that one product need not wait for the last. Integers: the order does not matter.
      __m512i even = _mm512_setzero_si512();
      __m512i odd = _mm512_setzero_si512();
      for (int k = 0; k < 4; ++k) {
        even = _mm512_dpbusd_epi32(even, low[k], Broadcast4(x + k * 4));
        odd = _mm512_dpbusd_epi32(odd, high[k], Broadcast4(x + 16 + k * 4));
      }
      const float x_scale = tile.scales[r][b];
      const float x_sum = x_scale * static_cast<float>(tile.sums[r][2 * b] + tile.sums[r][2 * b + 1]);
      const __m512 product = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
      sums[r] = _mm512_fmadd_ps(product, _mm512_mul_ps(scale, _mm512_set1_ps(x_scale)), sums[r]);
      sums[r] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(x_sum), sums[r]);
    }
  }
}

template <int kRows>
inline void Bytes(const PackedTile& tile, __m512* sums) {
  const uint8_t* block = tile.group;
  for (int64_t b = 0; b < tile.columns / 32; ++b, block += kBytesBlockBytes) {
    __m512i bytes[8];
    for (int k = 0; k < 8; ++k) bytes[k] = _mm512_loadu_si512(block + k * 64);
    const __m512 scale = LoadF16(block + 512);
    for (int r = 0; r < kRows; ++r) {
      const int8_t* x = tile.values[r] + b * 32;
      __m512i even = _mm512_set1_epi32(-128 * (tile.sums[r][2 * b] + tile.sums[r][2 * b + 1]));
      __m512i odd = _mm512_setzero_si512();
      for (int k = 0; k < 8; k += 2) {
        even = _mm512_dpbusd_epi32(even, bytes[k], Broadcast4(x + k * 4));
        odd = _mm512_dpbusd_epi32(odd, bytes[k + 1], Broadcast4(x + k * 4 + 4));
      }
      const __m512 product = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
      sums[r] = _mm512_fmadd_ps(product, _mm512_mul_ps(scale, _mm512_set1_ps(tile.scales[r][b])), sums[r]);
    }
  }
}

template <int kRows>
inline void SixBits(const PackedTile& tile, __m512* sums) {
  const uint8_t* block = tile.group;
  for (int64_t b = 0; b < tile.columns / 16; ++b, block += kSixBitsBlockBytes) {
    __m512i bytes[4];
    for (int k = 0; k < 4; ++k) bytes[k] = _mm512_loadu_si512(block + k * 64);
    const __m512 scale = _mm512_loadu_ps(reinterpret_cast<const float*>(block + 256));
    for (int r = 0; r < kRows; ++r) {
      const int8_t* x = tile.values[r] + b * 16;
      __m512i product = _mm512_set1_epi32(-32 * tile.sums[r][b]);
      for (int k = 0; k < 4; ++k) product = _mm512_dpbusd_epi32(product, bytes[k], Broadcast4(x + k * 4));
      const __m512 x_scale = _mm512_set1_ps(tile.scales[r][b / 2]);
      sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(product), _mm512_mul_ps(scale, x_scale), sums[r]);
    }
  }
}

template <int kRows>
void Tile(const PackedTile& tile) {
  __m512 sums[kRows];
  for (int r = 0; r < kRows; ++r) sums[r] = _mm512_setzero_ps();
  switch (tile.form) {
    case PackedForm::kNibbles:
      Nibbles<kRows>(tile, sums);
      break;
    case PackedForm::kBytes:
      Bytes<kRows>(tile, sums);
      break;
    case PackedForm::kSixBits:
      SixBits<kRows>(tile, sums);
      break;
  }
  for (int r = 0; r < kRows; ++r) _mm512_storeu_ps(tile.output[r], sums[r]);
}

}  // namespace

void PackedProductAvx512Vnni(const PackedTile& tile) {
  static_assert(kRowTile == 4);
  switch (tile.row_count) {
    case 1:
      return Tile<1>(tile);
    case 2:
      return Tile<2>(tile);
    case 3:
      return Tile<3>(tile);
    default:
      return Tile<4>(tile);
  }
}

}  // namespace fermata::kernels
