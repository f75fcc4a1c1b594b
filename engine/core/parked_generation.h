// A paused generation as a value, all but its KV: what a file of the disk tier holds, so that another process can go on
// where this one stopped.

#ifndef FERMATA_ENGINE_CORE_PARKED_GENERATION_H_
#define FERMATA_ENGINE_CORE_PARKED_GENERATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/core/generation_info.h"
#include "engine/core/generation_spec.h"
#include "engine/core/generation_state.h"
#include "engine/core/ids.h"
#include "engine/core/model_runner.h"

namespace fermata {

struct ParkedGeneration {
  GenerationId id;
  std::string body_digest;
  GenerationSpec spec;           // its prompt is empty: it is in `context`
  std::vector<TokenId> context;  // prompt, then output, with what was appended between
  std::vector<TokenRange> appended;
  std::string append_id;
  std::vector<int32_t> text_begins;  // output offsets at which its text began anew, after a hold on stop
  int32_t computed_token_count = 0;  // whose KV is in the file
  FinishReason held_finish = FinishReason::kNone;
  Usage usage;  // as it was, durations included

  // The hold: its lease starts afresh, its session may be opened again within its ttl.
  std::string pause_reason;
  absl::Duration lease = absl::InfiniteDuration();
  OnLeaseExpiry on_lease_expiry = OnLeaseExpiry::kContinue;
  std::string session_id;
  absl::Duration session_ttl;

  absl::Time create_time;
  absl::Time start_time;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_PARKED_GENERATION_H_
