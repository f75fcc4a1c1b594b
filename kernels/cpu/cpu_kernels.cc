#include "kernels/cpu/cpu_kernels.h"

namespace fermata::kernels {

absl::string_view Name(InstructionSet set) {
  switch (set) {
    case InstructionSet::kPlain:
      return "plain";
    case InstructionSet::kAvx2:
      return "avx2";
    case InstructionSet::kAvx512Vnni:
      return "avx512-vnni";
  }
  return "";
}

std::vector<InstructionSet> SupportedInstructionSets() {
  std::vector<InstructionSet> sets = {InstructionSet::kPlain};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    sets.push_back(InstructionSet::kAvx2);
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vnni")) {
    sets.push_back(InstructionSet::kAvx512Vnni);
  }
#endif
  return sets;
}

PackedProduct ProductFor(InstructionSet set) {
#if defined(__x86_64__)
  if (set == InstructionSet::kAvx2) return PackedProductAvx2;
  if (set == InstructionSet::kAvx512Vnni) return PackedProductAvx512Vnni;
#endif
  return PackedProductPlain;
}

}  // namespace fermata::kernels
