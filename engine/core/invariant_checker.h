// Recounts everything that the engine keeps count of.

#ifndef FERMATA_ENGINE_CORE_INVARIANT_CHECKER_H_
#define FERMATA_ENGINE_CORE_INVARIANT_CHECKER_H_

#include "absl/status/status.h"
#include "engine/core/engine_state.h"

namespace fermata {

// OK if all parts of `state` agree with each other; INTERNAL naming the first generation or counter that does not.
// `step_is_prepared`: a batch has been handed out and its results are not in, so some that run may have computed
// nothing. O(everything): for tests and simulations.
absl::Status CheckInvariants(const EngineState& state, bool step_is_prepared);

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_INVARIANT_CHECKER_H_
