// What can be known of a generation from outside: from what was asked, what was run and what was reported.

#ifndef FERMATA_TESTS_SIM_OBSERVED_GENERATION_H_
#define FERMATA_TESTS_SIM_OBSERVED_GENERATION_H_

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/core/engine_options.h"
#include "engine/core/generation_spec.h"
#include "engine/core/generation_state.h"
#include "engine/core/ids.h"

namespace fermata {

// A place in the one order; smaller is served sooner.
struct Place {
  int32_t priority = 0;
  GenerationKey arrival{};

  friend auto operator<=>(const Place& a, const Place& b) = default;
};

struct ObservedGeneration {
  GenerationKey key{};
  GenerationId id;
  GenerationSpec spec;  // as it was asked for; the priority as it was last set
  GenerationState state = GenerationState::kNone;
  absl::Time create_time;
  absl::Time finish_time;  // once finished
  std::vector<TokenId> tokens;
  std::string text;
  int64_t computed_token_count = 0;  // by the batches it was in
  int64_t prefilled_token_count = 0;
  int64_t cached_token_count = 0;  // that it did not have to compute
  int64_t block_count = 0;         // held: from the first admission to the finish
  int64_t pause_step = -1;         // last completed step when it was last paused
  int64_t pause_count = 0;
  int64_t preemption_count = 0;

  // All that it can ever need, reserved at once.
  int64_t BlockCountNeeded(int32_t block_tokens) const {
    const int64_t tokens = static_cast<int64_t>(spec.prompt.size()) + spec.sampling.max_tokens;
    return (tokens + block_tokens - 1) / block_tokens;
  }

  int64_t pending_token_count() const {
    return static_cast<int64_t>(spec.prompt.size() + tokens.size()) - computed_token_count;
  }
  bool decoding() const { return !tokens.empty(); }

  // Its place, by the policy.
  Place PlaceIn(const EngineOptions& options) const {
    return {options.policy == SchedulePolicy::kPriority ? spec.priority : 0, key};
  }
};

// Those that the engine still keeps, finished ones too, in order of arrival.
using ObservedGenerations = std::map<GenerationKey, ObservedGeneration>;

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_OBSERVED_GENERATION_H_
