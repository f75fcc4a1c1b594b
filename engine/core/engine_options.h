// Limits and policies of the engine, fixed for its life.

#ifndef FERMATA_ENGINE_CORE_ENGINE_OPTIONS_H_
#define FERMATA_ENGINE_CORE_ENGINE_OPTIONS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace fermata {

// In which order generations are admitted and served.
enum class SchedulePolicy {
  kPriority,  // (priority, arrival)
  kFcfs,      // arrival alone; priorities are kept and shown, but do not order
};

// Whether a newcomer may take the slot of a running generation that is strictly less urgent.
enum class Displacement { kRunning, kNever };

struct EngineOptions {
  // Behaviour.
  SchedulePolicy policy = SchedulePolicy::kPriority;
  Displacement displacement = Displacement::kRunning;
  absl::Duration disconnect_lease = absl::Minutes(10);  // how long a pause by disconnect waits for a reader

  // Bounds. Each is named by its flag in the error of whoever meets it.
  int32_t max_running = 64;                         // generations in one step
  int32_t max_queued = 10000;                       // newcomers in QUEUED
  int32_t max_live = 100000;                        // all that are not finished
  int32_t context_tokens = 2048;                    // prompt + max_tokens of one generation
  int32_t max_finished = 10000;                     // finished ones kept for GetGeneration and Attach
  absl::Duration finished_age = absl::Minutes(10);  // and for how long

  // Performance.
  int32_t block_tokens = 16;   // tokens in one KV block
  int32_t block_count = 1024;  // blocks in the device pool
  int32_t step_tokens = 2048;  // tokens computed in one step, over all generations

  // Revisions start here, so that they never repeat over restarts: the process's start time in microseconds.
  int64_t first_revision = 1;

  // INVALID_ARGUMENT naming the flag and the allowed range.
  absl::Status Validate() const;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_ENGINE_OPTIONS_H_
