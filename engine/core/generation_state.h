// The life of a generation: its states, why it ended, and which moves are legal.

#ifndef FERMATA_ENGINE_CORE_GENERATION_STATE_H_
#define FERMATA_ENGINE_CORE_GENERATION_STATE_H_

#include "absl/strings/string_view.h"

namespace fermata {

// Legal moves (everything else is a broken invariant):
//
//   (new)      -> QUEUED      Enqueue, Generate
//   (new)      -> PAUSED      Enqueue with hold
//   QUEUED     -> RUNNING     admitted by the scheduler
//   RUNNING    -> PREEMPTED   displaced by the scheduler, for a more urgent one or for want of blocks
//   PREEMPTED  -> RUNNING     admitted again, by itself
//   QUEUED, RUNNING, PREEMPTED -> PAUSED   Preempt; hold_on_stop; a disconnect that asks for it
//   PAUSED     -> QUEUED      Continue, or its lease or session ended; nothing computed yet
//   PAUSED     -> PREEMPTED   likewise; has KV
//   any live   -> FINISHED    stop, length, Abort, disconnect, timeout, lease, error
//
// kNone is "does not exist yet"; it is never the state of a stored generation.
enum class GenerationState { kNone, kQueued, kRunning, kPreempted, kPaused, kFinished };
inline constexpr int kGenerationStateCount = 6;

// Why a generation is FINISHED; kNone while it lives.
enum class FinishReason { kNone, kStop, kLength, kAborted, kDeadline, kError };

// True if the table above has the move.
bool IsLegalTransition(GenerationState from, GenerationState to);

inline bool IsLive(GenerationState state) {
  return state != GenerationState::kNone && state != GenerationState::kFinished;
}

// The names that the API uses: "QUEUED", "STOP" and so on.
absl::string_view Name(GenerationState state);
absl::string_view Name(FinishReason reason);

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_GENERATION_STATE_H_
