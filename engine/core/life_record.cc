#include "engine/core/life_record.h"

#include <algorithm>

namespace fermata {

absl::Duration* LifeRecord::DurationOf(GenerationState state) {
  switch (state) {
    // Whoever is preempted waits for its turn, as whoever is queued does.
    case GenerationState::kQueued:
    case GenerationState::kPreempted:
      return &queued_duration_;
    case GenerationState::kRunning:
      return &running_duration_;
    case GenerationState::kPaused:
      return &paused_duration_;
    case GenerationState::kNone:
    case GenerationState::kFinished:
      return nullptr;
  }
  return nullptr;
}

void LifeRecord::Adopt(const Usage& usage, absl::Time start_time) {
  start_time_ = start_time;
  queued_duration_ = usage.queued_duration;
  running_duration_ = usage.running_duration;
  paused_duration_ = usage.paused_duration;
  preemption_count_ = usage.preemption_count;
  // It is paused once more by being found.
  pause_count_ = std::max<int64_t>(0, usage.pause_count - 1);
}

void LifeRecord::Describe(absl::Time now, GenerationInfo* info) const {
  // The time in the present state is added to a copy: only a move writes to the record.
  LifeRecord up_to_now = *this;
  if (absl::Duration* duration = up_to_now.DurationOf(state_)) *duration += now - since_;
  info->state = state_;
  info->finish_reason = finish_reason_;
  info->error_message = error_message_;
  info->start_time = start_time_;
  info->finish_time = finish_time_;
  info->step = step_;
  info->usage.preemption_count = preemption_count_;
  info->usage.pause_count = pause_count_;
  info->usage.queued_duration = up_to_now.queued_duration_;
  info->usage.running_duration = up_to_now.running_duration_;
  info->usage.paused_duration = up_to_now.paused_duration_;
}

}  // namespace fermata
