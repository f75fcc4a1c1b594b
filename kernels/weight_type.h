// The forms in which weights are stored.

#ifndef FERMATA_KERNELS_WEIGHT_TYPE_H_
#define FERMATA_KERNELS_WEIGHT_TYPE_H_

#include <cstdint>

namespace fermata::kernels {

// As GGUF files pack them. Elements of a row are packed in blocks; a row never shares a block with another.
enum class WeightType { kF32, kF16, kBF16, kQ4_0, kQ4_1, kQ8_0, kQ6_K, kQ4_K, kQ5_K, kQ5_0, kQ5_1, kIQ4_NL };

struct WeightTypeInfo {
  int32_t block_elements;
  int32_t block_bytes;
};

constexpr WeightTypeInfo InfoOf(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return {1, 4};
    case WeightType::kF16:
    case WeightType::kBF16:
      return {1, 2};
    case WeightType::kQ4_0:
      return {32, 18};
    case WeightType::kQ4_1:
      return {32, 20};
    case WeightType::kQ8_0:
      return {32, 34};
    case WeightType::kQ6_K:
      return {256, 210};
    case WeightType::kQ4_K:
      return {256, 144};
    case WeightType::kQ5_K:
      return {256, 176};
    case WeightType::kQ5_0:
      return {32, 22};
    case WeightType::kQ5_1:
      return {32, 24};
    case WeightType::kIQ4_NL:
      return {32, 18};
  }
  return {1, 0};
}

// A matrix of weights in memory that somebody else owns: `rows` rows (outputs) of `columns` elements (inputs),
// `columns` a multiple of the type's block_elements. A vector is a matrix of one row.
struct WeightView {
  WeightType type = WeightType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;
  const uint8_t* data = nullptr;

  int64_t row_bytes() const { return columns / InfoOf(type).block_elements * InfoOf(type).block_bytes; }
  const uint8_t* row(int64_t index) const { return data + index * row_bytes(); }
};

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_WEIGHT_TYPE_H_
