// Which verbs are legal for whom, and what they make of a generation: rules alone, nothing is done here.

#ifndef FERMATA_ENGINE_CORE_VERB_RULES_H_
#define FERMATA_ENGINE_CORE_VERB_RULES_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/core/commands.h"
#include "engine/core/engine_state.h"
#include "engine/core/generation.h"
#include "engine/core/generation_state.h"
#include "engine/core/ids.h"

namespace fermata {

// What of a generation the rules look at. Views live as long as the generation, or the command that makes it.
struct Standing {
  GenerationState state = GenerationState::kNone;  // kNone: unknown, or not kept
  bool has_kv = false;
  bool held_by_control = false;
  absl::string_view holder;  // the session that does; empty: an operator, or nobody
  absl::string_view body_digest;
  absl::string_view append_id;      // of the last append
  int64_t context_token_count = 0;  // prompt, appended and output
  int64_t output_token_count = 0;
  int64_t max_tokens = 0;
  bool ends_turn = false;  // the last token of the context is an end of generation
  absl::string_view tenant;
  absl::string_view traffic_class;
  int32_t class_index = 0;
};

// How full the engine is.
struct Occupancy {
  int64_t live_count = 0;
  std::vector<int64_t> queued_by_class;  // by EngineOptions::ClassIndex
};

Standing StandingOf(const EngineState& state, const Generation& generation);
Occupancy OccupancyOf(const EngineState& state);

// What a Continue puts into the context of a generation that stands so.
std::vector<TokenId> TokensToAppend(const ContinueCommand& command, const Standing& standing);

// True if `command` repeats the last append of a generation that stands so: done already.
bool IsRepeated(const ContinueCommand& command, const Standing& standing);

// Each judges a verb over generation `id`: with OK, `standing` becomes what it will be afterwards; else it stays, and
// the error is the verb's. The caller's session is good. Enqueue's error names the limit that is met.
absl::Status Judge(const EnqueueCommand& command, const EngineState& state, const Occupancy& occupancy,
                   Standing& standing);
absl::Status Judge(const PreemptCommand& command, const EngineState& state, const GenerationId& id, Standing& standing);
absl::Status Judge(const ContinueCommand& command, const EngineState& state, const GenerationId& id,
                   Standing& standing);
absl::Status Judge(const AbortCommand& command, const EngineState& state, const GenerationId& id, Standing& standing);
absl::Status Judge(const SetPriorityCommand& command, const EngineState& state, const GenerationId& id,
                   Standing& standing);

// NOT_FOUND.
absl::Status UnknownGeneration(const GenerationId& id);

bool Matches(const Selector& selector, const Standing& standing);

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_VERB_RULES_H_
