#include "engine/core/generation_state.h"

namespace fermata {

bool IsLegalTransition(GenerationState from, GenerationState to) {
  using State = GenerationState;
  switch (from) {
    case State::kNone:
      return to == State::kQueued || to == State::kPaused;
    case State::kQueued:
      return to == State::kRunning || to == State::kPaused || to == State::kFinished;
    case State::kRunning:
      return to == State::kPreempted || to == State::kPaused || to == State::kFinished;
    case State::kPreempted:
      return to == State::kRunning || to == State::kPaused || to == State::kFinished;
    case State::kPaused:
      return to == State::kQueued || to == State::kPreempted || to == State::kFinished;
    case State::kFinished:
      return false;
  }
  return false;
}

absl::string_view Name(GenerationState state) {
  switch (state) {
    case GenerationState::kNone:
      return "NONE";
    case GenerationState::kQueued:
      return "QUEUED";
    case GenerationState::kRunning:
      return "RUNNING";
    case GenerationState::kPreempted:
      return "PREEMPTED";
    case GenerationState::kPaused:
      return "PAUSED";
    case GenerationState::kFinished:
      return "FINISHED";
  }
  return "UNKNOWN";
}

absl::string_view Name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "NONE";
    case FinishReason::kStop:
      return "STOP";
    case FinishReason::kLength:
      return "LENGTH";
    case FinishReason::kAborted:
      return "ABORTED";
    case FinishReason::kDeadline:
      return "DEADLINE";
    case FinishReason::kError:
      return "ERROR";
  }
  return "UNKNOWN";
}

}  // namespace fermata
