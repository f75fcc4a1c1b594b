// Products of packed weights and 8-bit activations, one function for each instruction set.

#ifndef FERMATA_KERNELS_CPU_PACKED_PRODUCT_H_
#define FERMATA_KERNELS_CPU_PACKED_PRODUCT_H_

#include <cstdint>

#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/quantized_rows.h"

namespace fermata::kernels {

// One tile of a product: 16 weight rows by up to kRowTile activation rows.
struct PackedTile {
  PackedForm form;
  int64_t columns;                // a multiple of 32
  const uint8_t* group;           // the weights' blocks
  int row_count;                  // 1 to rows_per_tile
  int rows_per_tile;              // as QuantizedRows has it, as are the next two
  const int8_t* values;           // [columns / 32][rows_per_tile][32]
  const ActivationBlock* blocks;  // [columns / 32][rows_per_tile]
  float* output[kRowTile];        // [16]: written whole
};

// For each row: output[o] = the sum over column blocks, in their order, of
//   activation scale * weight scale * (integer product - offset * sum) [+ activation scale * weight minimum * sum],
// in float32, each term one fused multiply-add. Integer products are exact, so the bits are the same for every
// instruction set that has a fused multiply-add, and for any row_count.
using PackedProduct = void (*)(const PackedTile& tile);

void PackedProductPlain(const PackedTile& tile);

// Calls `body` with an empty object of the form's layout, so that each form has code of its own. A template over the
// caller's own type: files compiled for different instruction sets share nothing of it. REQUIRES: `body` is a lambda.
template <typename Body>
inline void WithForm(PackedForm form, const Body& body) {
  switch (form) {
    case PackedForm::kNibbles:
      return body(NibblesLayout<false, false>());
    case PackedForm::kFiveBits:
      return body(NibblesLayout<true, false>());
    case PackedForm::kScaledNibbles:
      return body(NibblesLayout<false, true>());
    case PackedForm::kScaledFiveBits:
      return body(NibblesLayout<true, true>());
    case PackedForm::kTableNibbles:
      return body(BytesLayout<true>());
    case PackedForm::kBytes:
      return body(BytesLayout<false>());
    case PackedForm::kSixBits:
      return body(SixBitsLayout());
  }
}

// For instruction sets whose registers hold the sums of four rows: tiles[n - 1] does n of them.
void MultiplyByFours(const PackedTile& tile, const PackedProduct (&tiles)[4]);

#if defined(__x86_64__)
void PackedProductAvx2(const PackedTile& tile);          // needs AVX2, FMA, F16C
void PackedProductAvxVnni(const PackedTile& tile);       // needs AVX-VNNI too
void PackedProductAvx512VlVnni(const PackedTile& tile);  // the same, needs AVX-512 VL and VNNI instead of AVX-VNNI
void PackedProductAvx512Vnni(const PackedTile& tile);    // needs AVX-512 F, BW, VL, VNNI
#elif defined(__aarch64__)
void PackedProductNeon(const PackedTile& tile);  // needs Armv8.2's dot products
#endif

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_PACKED_PRODUCT_H_
