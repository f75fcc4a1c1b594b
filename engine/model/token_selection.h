// What a back end is told of a token that it is to select: the sampler's parameters as numbers for one row.

#ifndef FERMATA_ENGINE_MODEL_TOKEN_SELECTION_H_
#define FERMATA_ENGINE_MODEL_TOKEN_SELECTION_H_

#include <cstdint>
#include <vector>

#include "engine/core/sampling_params.h"
#include "engine/model/sampler.h"
#include "kernels/backend.h"

namespace fermata {

// Appends what Backend::SelectTokens() has to be told so that it gives what Sampler::Sample() would, with the changes
// of logits that bias and penalties make. False, and nothing is appended, if there would be more than `max_changes` in
// all, or if a token has two biases.
bool AppendSelection(const SamplingParams& params, const SamplingContext& context, int32_t max_changes,
                     std::vector<kernels::Backend::Selection>* selections,
                     std::vector<kernels::Backend::LogitChange>* changes);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_TOKEN_SELECTION_H_
