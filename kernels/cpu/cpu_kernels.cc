#include "kernels/cpu/cpu_kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace fermata::kernels {
namespace {

#if defined(__x86_64__)
// clang 14 does not know "f16c" as a name of __builtin_cpu_supports. The system's part of the support is that of AVX2.
bool HasF16c() {
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

bool HasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c(); }

// Nor does it know "avxvnni".
bool HasAvxVnni() {
  constexpr unsigned int kAvxVnniBit = 1u << 4;
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
  return HasAvx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & kAvxVnniBit) != 0;
}

bool HasAvx512Vnni() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
#endif

}  // namespace

absl::string_view Name(InstructionSet set) {
  switch (set) {
    case InstructionSet::kPlain:
      return "plain";
    case InstructionSet::kAvx2:
      return "avx2";
    case InstructionSet::kAvxVnni:
      return "avx-vnni";
    case InstructionSet::kAvx512Vnni:
      return "avx512-vnni";
    case InstructionSet::kNeonDot:
      return "neon-dotprod";
  }
  return "";
}

std::vector<InstructionSet> SupportedInstructionSets() {
  std::vector<InstructionSet> sets = {InstructionSet::kPlain};
#if defined(__x86_64__)
  if (HasAvx2()) sets.push_back(InstructionSet::kAvx2);
  if (HasAvxVnni() || (HasAvx2() && HasAvx512Vnni())) sets.push_back(InstructionSet::kAvxVnni);
  if (HasAvx512Vnni()) sets.push_back(InstructionSet::kAvx512Vnni);
#elif defined(__aarch64__) && defined(__linux__)
  if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0) sets.push_back(InstructionSet::kNeonDot);
#endif
  return sets;
}

PackedProduct ProductFor(InstructionSet set) {
#if defined(__x86_64__)
  if (set == InstructionSet::kAvx2) return PackedProductAvx2;
  if (set == InstructionSet::kAvxVnni) return HasAvxVnni() ? PackedProductAvxVnni : PackedProductAvx512VlVnni;
  if (set == InstructionSet::kAvx512Vnni) return PackedProductAvx512Vnni;
#elif defined(__aarch64__)
  if (set == InstructionSet::kNeonDot) return PackedProductNeon;
#endif
  return PackedProductPlain;
}

}  // namespace fermata::kernels
