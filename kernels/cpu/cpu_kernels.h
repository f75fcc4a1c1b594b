// Which instructions this machine has, and which the products use.

#ifndef FERMATA_KERNELS_CPU_CPU_KERNELS_H_
#define FERMATA_KERNELS_CPU_CPU_KERNELS_H_

#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/cpu/packed_product.h"

namespace fermata::kernels {

enum class InstructionSet { kPlain, kAvx2, kAvx512Vnni };

// "plain", "avx2", "avx512-vnni".
absl::string_view Name(InstructionSet set);

// Those that this machine can run, slowest first; never empty.
std::vector<InstructionSet> SupportedInstructionSets();

// REQUIRES: supported here.
PackedProduct ProductFor(InstructionSet set);

}  // namespace fermata::kernels

#endif  // FERMATA_KERNELS_CPU_CPU_KERNELS_H_
