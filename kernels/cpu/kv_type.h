// The forms in which the CPU keeps keys and values.

#ifndef FERMATA_KERNELS_CPU_KV_TYPE_H_
#define FERMATA_KERNELS_CPU_KV_TYPE_H_

#include <cstdint>

namespace fermata::kernels {

enum class KvType { kF32, kF16, kBF16 };

constexpr int32_t BytesOf(KvType type) { return type == KvType::kF32 ? 4 : 2; }

// "f32", "f16", "bf16".
constexpr const char* Name(KvType type) {
  switch (type) {
    case KvType::kF32:
      return "f32";
    case KvType::kF16:
      return "f16";
    case KvType::kBF16:
      return "bf16";
  }
  return "";
}

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_KV_TYPE_H_
