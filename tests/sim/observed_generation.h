// What can be known of a generation from outside: from what was asked, what was run and what was reported.

#ifndef FERMATA_TESTS_SIM_OBSERVED_GENERATION_H_
#define FERMATA_TESTS_SIM_OBSERVED_GENERATION_H_

#include <algorithm>
#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/core/engine_options.h"
#include "engine/core/generation_info.h"
#include "engine/core/generation_spec.h"
#include "engine/core/generation_state.h"
#include "engine/core/ids.h"
#include "tests/fakes/fake_model.h"

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
  int64_t told_cached_count = 0;   // as reported step by step
  int64_t recompute_end = 0;       // how far it had been computed when its KV was dropped
  int64_t recomputed_token_count = 0;
  KvTier tier = KvTier::kNone;  // the farthest where its KV is
  int64_t kept_count = 0;       // blocks of it that are on the device while others are on the host
  bool is_lost = false;         // it could not be read back from the disk
  int64_t block_count = 0;      // held, as far as it was told
  bool may_hold_more = false;   // a block may have been given to it before it was displaced, and was never told
  bool stalled = false;         // RUNNING, and there is no block for its next token
  int64_t pause_step = -1;      // last completed step when it was last paused
  int64_t pause_count = 0;
  int64_t preemption_count = 0;

  std::vector<TokenId> context;  // prompt, output, and what was appended
  std::vector<bool> is_given;    // which of these are no output
  int64_t prefill_end = 0;       // behind the last of those
  int64_t max_tokens = 0;        // as it was last set
  std::vector<FakeTurn> turns;

  void Give(const std::vector<TokenId>& tokens) {
    context.insert(context.end(), tokens.begin(), tokens.end());
    is_given.resize(context.size(), true);
    if (!tokens.empty()) prefill_end = static_cast<int64_t>(context.size());
  }
  int64_t GivenCount(int64_t end) const { return std::count(is_given.begin(), is_given.begin() + end, true); }

  // To be admitted: its context and one token more, if it may have one more.
  int64_t BlockCountNeeded(int32_t block_tokens) const {
    const int64_t size = static_cast<int64_t>(context.size());
    const int64_t tokens = std::min(size + 1, GivenCount(size) + max_tokens);
    return (tokens + block_tokens - 1) / block_tokens;
  }

  // To compute what is there.
  int64_t BlockCountToRun(int32_t block_tokens) const {
    return (static_cast<int64_t>(context.size()) + block_tokens - 1) / block_tokens;
  }

  int64_t pending_token_count() const { return static_cast<int64_t>(context.size()) - computed_token_count; }
  bool decoding() const { return computed_token_count >= std::max(prefill_end, recompute_end); }

  // Its place, by the policy.
  Place PlaceIn(const EngineOptions& options) const {
    return {options.policy == SchedulePolicy::kPriority ? spec.priority : 0, key};
  }
};

// Those that the engine still keeps, finished ones too, in order of arrival.
using ObservedGenerations = std::map<GenerationKey, ObservedGeneration>;

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_OBSERVED_GENERATION_H_
