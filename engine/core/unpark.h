// A generation out of what its file says, and its output told once more.

#ifndef FERMATA_ENGINE_CORE_UNPARK_H_
#define FERMATA_ENGINE_CORE_UNPARK_H_

#include "absl/status/status.h"
#include "engine/core/generation.h"
#include "engine/core/journal.h"
#include "engine/core/parked_generation.h"
#include "engine/core/token_decoder.h"

namespace fermata {

// INVALID_ARGUMENT if no generation can be like that, whatever bytes it was read from: counts that contradict each
// other, tokens that the model does not have, more than `context_tokens`, other numbers of blocks than its tokens fill.
absl::Status CheckParked(const ParkedGeneration& parked, int64_t block_count, int32_t block_tokens,
                         int32_t context_tokens, int32_t vocabulary_size);

// Fills in a new record, but for its state, place and hold. REQUIRES: CheckParked() is OK.
void Unpark(ParkedGeneration parked, Generation* generation);

// Records every output token with its text, for readers that come; leaves the text where it was. Logprobs are not kept.
void TellAgain(Generation& generation, const TokenDecoder& decoder, Journal& journal);

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_UNPARK_H_
