// The engine's own record of one generation.

#ifndef FERMATA_ENGINE_CORE_GENERATION_H_
#define FERMATA_ENGINE_CORE_GENERATION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/core/generation_info.h"
#include "engine/core/generation_spec.h"
#include "engine/core/ids.h"
#include "engine/core/life_record.h"
#include "engine/core/order_key.h"
#include "engine/core/text_assembler.h"

namespace fermata {

// Owned by GenerationTable, at a fixed address for as long as it is kept. Parts of the engine write to it as follows:
// LifeCycle everything about state, holds, order, blocks and timers; StepResults what a step computed; CommandProcessor
// the readers. A finished one keeps what GetGeneration shows, and nothing else.
struct Generation {
  GenerationKey key{};
  GenerationId id;
  std::string body_digest;
  GenerationSpec spec;  // its prompt is moved to `context`
  absl::Time create_time = absl::InfinitePast();
  absl::Time deadline = absl::InfiniteFuture();  // create_time + spec.timeout

  LifeRecord life;
  PauseInfo pause;  // PAUSED exactly while one of its holds is set
  OrderKey order;   // never changes while the generation is in a GenerationQueue
  int64_t reader_count = 0;
  int64_t revision = 0;  // of its last event

  std::vector<TokenId> context;  // prompt, then output; empty once finished
  int32_t prompt_token_count = 0;
  int32_t output_token_count = 0;
  int32_t computed_token_count = 0;   // tokens of `context` whose KV is written, from its beginning
  int32_t prefilled_token_count = 0;  // how many of those are prompt
  std::vector<BlockId> blocks;        // reserved for prompt + max_tokens at admission, kept until the finish
  std::optional<TextAssembler> text;  // from the first output token to the finish

  GenerationState state() const { return life.state(); }
  bool live() const { return life.live(); }

  // Tokens that can be computed now. 1 when only the last sampled token's KV is missing.
  int32_t pending_token_count() const { return static_cast<int32_t>(context.size()) - computed_token_count; }

  // True if its prompt is computed, so that its next step is a decode of one token.
  bool decoding() const { return output_token_count > 0; }

  // The most tokens that it will ever hold KV for.
  int64_t token_limit() const { return int64_t{prompt_token_count} + spec.sampling.max_tokens; }

  // A copy for the outside. Durations count up to `now`.
  GenerationInfo Describe(absl::Time now) const;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_GENERATION_H_
