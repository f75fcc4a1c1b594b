// The largest of many logits.

#ifndef FERMATA_ENGINE_MODEL_ARG_MAX_H_
#define FERMATA_ENGINE_MODEL_ARG_MAX_H_

#include <cstdint>

#include "absl/types/span.h"

namespace fermata {

// The index of the largest value, the lowest among equals; -1 if one is NaN, if the largest is infinite, or if there is
// none. Any thread. Greedy decoding spends its time here, so it goes at the speed of the memory.
int32_t ArgMax(absl::Span<const float> values);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_ARG_MAX_H_
