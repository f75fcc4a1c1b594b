// How many tokens a step can take.

#ifndef FERMATA_ENGINE_RUNTIME_STEP_CALIBRATION_H_
#define FERMATA_ENGINE_RUNTIME_STEP_CALIBRATION_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/core/model_runner.h"
#include "engine/runtime/clock.h"

namespace fermata {

// Measures prefill steps of growing size on `runner` until one takes a fair part of `target` several times, and returns
// how many tokens would fill `target` at the best pace seen: a multiple of 16, from 16 to `max_tokens`. So a machine
// that is busy for a moment does not look slow. Begins no step once 3 times `target` have gone by. Writes over the
// first blocks of the KV pool, so it must come before any engine uses the runner. Fails as the runner does.
absl::StatusOr<int32_t> CalibrateStepTokens(ModelRunner& runner, const Clock& clock, absl::Duration target,
                                            int32_t block_tokens, int32_t block_count, int32_t max_tokens);

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_STEP_CALIBRATION_H_
