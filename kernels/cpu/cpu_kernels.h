// Which instructions this machine has, and which the products use.

#ifndef FERMATA_KERNELS_CPU_CPU_KERNELS_H_
#define FERMATA_KERNELS_CPU_CPU_KERNELS_H_

#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/cpu/packed_product.h"

namespace fermata::kernels {

// kAvxVnni: dot products in vectors of 256 bits, in AVX-VNNI's encoding or, where there is none, in AVX-512's.
enum class InstructionSet { kPlain, kAvx2, kAvxVnni, kAvx512Vnni, kNeonDot };

// "plain", "avx2", "avx-vnni", "avx512-vnni", "neon-dotprod".
absl::string_view Name(InstructionSet set);

// Those that this machine can run, slowest first; never empty.
std::vector<InstructionSet> SupportedInstructionSets();

// REQUIRES: supported here.
PackedProduct ProductFor(InstructionSet set);

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_CPU_KERNELS_H_
