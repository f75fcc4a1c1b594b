#include "engine/model/tensor_type.h"

#include "glog/logging.h"

namespace fermata {
namespace {

constexpr TensorTypeInfo kTypes[] = {
    {TensorType::kF32, "F32", 1, 4, true},        {TensorType::kF16, "F16", 1, 2, true},
    {TensorType::kBF16, "BF16", 1, 2, true},      {TensorType::kQ4_0, "Q4_0", 32, 18, true},
    {TensorType::kQ4_1, "Q4_1", 32, 20, true},    {TensorType::kQ8_0, "Q8_0", 32, 34, true},
    {TensorType::kQ6_K, "Q6_K", 256, 210, true},  {TensorType::kQ5_0, "Q5_0", 32, 22, true},
    {TensorType::kQ5_1, "Q5_1", 32, 24, true},    {TensorType::kQ2_K, "Q2_K", 256, 84, false},
    {TensorType::kQ3_K, "Q3_K", 256, 110, false}, {TensorType::kQ4_K, "Q4_K", 256, 144, true},
    {TensorType::kQ5_K, "Q5_K", 256, 176, true},  {TensorType::kIQ4_NL, "IQ4_NL", 32, 18, true},
};

}  // namespace

std::optional<TensorTypeInfo> FindTensorType(uint32_t value) {
  for (const TensorTypeInfo& info : kTypes) {
    if (static_cast<uint32_t>(info.type) == value) return info;
  }
  return std::nullopt;
}

const TensorTypeInfo& InfoOf(TensorType type) {
  for (const TensorTypeInfo& info : kTypes) {
    if (info.type == type) return info;
  }
  LOG(FATAL) << "not a TensorType: " << static_cast<uint32_t>(type);
}

}  // namespace fermata
