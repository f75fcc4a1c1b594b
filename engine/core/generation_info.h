// A generation as readers see it: a value copied out of the engine, safe on any thread.

#ifndef FERMATA_ENGINE_CORE_GENERATION_INFO_H_
#define FERMATA_ENGINE_CORE_GENERATION_INFO_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/core/generation_state.h"
#include "engine/core/ids.h"

namespace fermata {

// Where the KV of a generation rests; the farthest tier that holds any of it.
enum class KvTier { kNone, kDevice, kHost, kDisk };
inline constexpr int kKvTierCount = 4;

// "NONE", "DEVICE" and so on, as the API has them.
absl::string_view Name(KvTier tier);

// Blocks held, by tier.
struct KvBlockCounts {
  int64_t device = 0;
  int64_t host = 0;
  int64_t disk = 0;

  int64_t total() const { return device + host + disk; }
};

// Counts and times of one generation. For a generation that was never recomputed,
// prefilled = prompt - cached + appended once its prompt is computed.
struct Usage {
  int64_t prompt_token_count = 0;
  int64_t cached_token_count = 0;
  int64_t appended_token_count = 0;
  int64_t prefilled_token_count = 0;
  int64_t recomputed_token_count = 0;
  int64_t output_token_count = 0;
  int64_t preemption_count = 0;    // by the scheduler
  int64_t pause_count = 0;         // by the control plane (a hold at Enqueue included) or a disconnect
  absl::Duration queued_duration;  // QUEUED and PREEMPTED
  absl::Duration running_duration;
  absl::Duration paused_duration;
};

// What becomes of a generation whose hold ends by itself.
enum class OnLeaseExpiry { kContinue, kAbort };

// Why a paused generation is held. Both may hold at once; it is PAUSED while either does.
struct PauseInfo {
  // By the control plane (Preempt, hold): until Continue, or until its lease or session ends, whichever is first.
  bool by_control = false;
  std::string reason;      // as the caller gave it
  std::string session_id;  // whose hold it is; empty: an operator's
  absl::Duration session_ttl = absl::ZeroDuration();
  absl::Duration lease_duration = absl::InfiniteDuration();
  absl::Time lease_expire_time = absl::InfiniteFuture();
  OnLeaseExpiry on_lease_expiry = OnLeaseExpiry::kContinue;

  // By its last reader, who left: until the next Attach or Continue. Past the time it is aborted.
  bool by_disconnect = false;
  absl::Time disconnect_expire_time = absl::InfiniteFuture();
};

struct GenerationInfo {
  GenerationKey key{};
  GenerationId id;
  GenerationState state = GenerationState::kNone;
  FinishReason finish_reason = FinishReason::kNone;
  std::string error_message;  // for kError, kDeadline and kAborted: what happened, for people
  int32_t priority = 0;
  std::string tenant;
  std::string traffic_class;
  std::vector<std::pair<std::string, std::string>> labels;
  KvTier kv_tier = KvTier::kNone;
  KvBlockCounts kv_blocks;  // held; while they move: where they come from
  Usage usage;
  PauseInfo pause;
  absl::Time create_time = absl::InfinitePast();
  absl::Time start_time = absl::InfinitePast();   // first became RUNNING; InfinitePast: never
  absl::Time finish_time = absl::InfinitePast();  // InfinitePast: not yet
  int64_t step = 0;                               // last completed step when its state last changed
  int64_t revision = 0;                           // of the report in which it last changed
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_GENERATION_INFO_H_
