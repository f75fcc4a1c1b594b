// The types of weights that GGUF files hold.

#ifndef FERMATA_ENGINE_MODEL_TENSOR_TYPE_H_
#define FERMATA_ENGINE_MODEL_TENSOR_TYPE_H_

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"

namespace fermata {

// Values are those of the GGUF format.
enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kBF16 = 30,
};

// How a type packs its elements: in blocks along a row.
struct TensorTypeInfo {
  TensorType type;
  absl::string_view name;
  int32_t block_elements;
  int32_t block_bytes;
  bool served;  // the kernels can compute with it
};

// Nothing for a type that is not listed above.
std::optional<TensorTypeInfo> FindTensorType(uint32_t value);

// REQUIRES: a value of the enum.
const TensorTypeInfo& InfoOf(TensorType type);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_TENSOR_TYPE_H_
