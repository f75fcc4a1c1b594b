// The part of a generation that tells where in its life it is, and where it has been.

#ifndef FERMATA_ENGINE_CORE_LIFE_RECORD_H_
#define FERMATA_ENGINE_CORE_LIFE_RECORD_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "engine/core/generation_info.h"
#include "engine/core/generation_state.h"

namespace fermata {

// Everybody may read it; LifeCycle::Transition() alone writes it, but for what comes from a file.
class LifeRecord {
 public:
  GenerationState state() const { return state_; }
  bool live() const { return IsLive(state_); }

  // InfinitePast while it lives.
  absl::Time finish_time() const { return finish_time_; }

  // Goes on from a life before, of another process.
  void Adopt(const Usage& usage, absl::Time start_time);

  // Fills in the fields of `info` that come from here. Durations count up to `now`.
  void Describe(absl::Time now, GenerationInfo* info) const;

 private:
  friend class LifeCycle;

  // The duration that time spent in `state` counts for; nullptr for kNone and kFinished.
  absl::Duration* DurationOf(GenerationState state);

  GenerationState state_ = GenerationState::kNone;
  FinishReason finish_reason_ = FinishReason::kNone;
  std::string error_message_;
  int64_t step_ = 0;                         // last completed one when state_ was set
  absl::Time since_ = absl::InfinitePast();  // when state_ was set
  absl::Time start_time_ = absl::InfinitePast();
  absl::Time finish_time_ = absl::InfinitePast();
  absl::Duration queued_duration_;  // without the time since since_; the others likewise
  absl::Duration running_duration_;
  absl::Duration paused_duration_;
  int64_t preemption_count_ = 0;
  int64_t pause_count_ = 0;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_LIFE_RECORD_H_
