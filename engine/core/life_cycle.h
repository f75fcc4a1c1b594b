// What can happen to a generation. The only writer of states: whoever wants a generation to move asks here.

#ifndef FERMATA_ENGINE_CORE_LIFE_CYCLE_H_
#define FERMATA_ENGINE_CORE_LIFE_CYCLE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "engine/core/commands.h"
#include "engine/core/engine_state.h"
#include "engine/core/generation.h"
#include "engine/core/generation_state.h"
#include "engine/core/report.h"
#include "engine/core/residency.h"

namespace fermata {

// A hold of the control plane.
struct ControlHold {
  std::string reason;
  Lease lease;
  std::string session_id;  // empty: an operator's
};

// Each method leaves queues, blocks, timers, counters and the report in agreement with the generation. Illegal moves
// end the process: callers know the state and answer for what clients ask.
class LifeCycle {
 public:
  // Borrows both, which must outlive this.
  LifeCycle(EngineState& state, Residency& residency) : state_(state), residency_(residency) {}

  // The first move of a new record whose id, spec and context are filled in: PAUSED with `hold`, else QUEUED.
  void Begin(Generation& generation, const std::optional<ControlHold>& hold);

  // QUEUED or PREEMPTED -> RUNNING. Takes the blocks that it lacks. REQUIRES: they are there.
  void Admit(Generation& generation);

  // RUNNING -> PREEMPTED. It keeps its blocks.
  void Displace(Generation& generation);

  // Lets go of the KV of one that is RUNNING or PREEMPTED, and makes it PREEMPTED: when it is admitted again its tokens
  // are computed again. REQUIRES: it has KV on the device, and does not move.
  void Drop(Generation& generation);

  // Gives back the blocks behind the first `keep`, see Residency::Trim(), and tells of it.
  void Trim(Generation& generation, int64_t keep);

  // Holds a live generation until ReleaseHolds() or EndControlHold(). On one that is held already so: no change but a
  // new lease, if `hold` has one.
  void HoldByControl(Generation& generation, const ControlHold& hold);

  // The lease or the session of a hold by control has ended: the hold does too, or the generation, as was asked.
  // REQUIRES: there is such a hold.
  void EndControlHold(Generation& generation, Cause cause);

  // Holds a live generation until ReleaseHolds() or ReleaseDisconnectHold(), and sets the lease after which it is due
  // to be aborted. On one that is held already so: no change.
  void HoldByDisconnect(Generation& generation);

  // Ends all holds, or the one by disconnect; the last one to end makes it QUEUED (nothing computed) or PREEMPTED.
  // Without such a hold: no change.
  void ReleaseHolds(Generation& generation, Cause cause);
  void ReleaseDisconnectHold(Generation& generation, Cause cause);

  // One that waits has waited for so long that it moves up.
  void Age(Generation& generation);

  // Gives a live generation its new place in the order, at once. The same priority again: no change.
  void SetPriority(Generation& generation, int32_t priority);

  // RUNNING -> FINISHED, by itself: STOP or LENGTH. With hold_on_stop: -> PAUSED, until Continue.
  void End(Generation& generation, FinishReason reason);

  // Puts tokens after what is in the context of a paused generation, and sets the most output tokens it may have.
  void Append(Generation& generation, absl::Span<const TokenId> tokens, const std::string& append_id);
  void SetMaxTokens(Generation& generation, int32_t max_tokens);

  // Asks for the KV of a paused one to be on another tier; KvLadder sees to it when there is room.
  void SendTo(Generation& generation, KvTier tier);

  // The first move of a record that was found in a file, with so many blocks there: PAUSED.
  void Restore(Generation& generation, const ControlHold& hold, int64_t block_count);

  // Any live -> FINISHED. Releases the text held back, blocks, timers and memory. `message` is for people.
  void Finish(Generation& generation, FinishReason reason, Cause cause, std::string message);

 private:
  struct Move {
    GenerationState to = GenerationState::kNone;
    Cause cause = Cause::kScheduler;
    FinishReason reason = FinishReason::kNone;  // this and the message: to kFinished only
    std::string message = {};
  };

  // The one function that changes a state, and all that is counted or ordered by it.
  void Transition(Generation& generation, Move move);

  // Times and counts of the generation itself, as of the move from `from` to its present state.
  void UpdateRecord(LifeRecord& life, GenerationState from);

  // The engine's counters likewise.
  void UpdateCounters(const Generation& generation, GenerationState from);

  // Sets what a generation has gained by waiting, and when it gains more, if it waits.
  void SetAging(Generation& generation, int32_t levels);

  // Sets and ends holds, with their leases and sessions, without moving the generation.
  void SetControlHold(Generation& generation, const ControlHold& hold);
  void SetLease(Generation& generation, const Lease& lease);
  void DropControlHold(Generation& generation);
  void DropDisconnectHold(Generation& generation);

  // PAUSED -> where it goes on from.
  void Resume(Generation& generation, Cause cause);

  OrderKey OrderOf(const Generation& generation) const;

  EngineState& state_;
  Residency& residency_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_LIFE_CYCLE_H_
