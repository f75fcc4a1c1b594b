// Limits and policies of the engine, fixed for its life.

#ifndef FERMATA_ENGINE_CORE_ENGINE_OPTIONS_H_
#define FERMATA_ENGINE_CORE_ENGINE_OPTIONS_H_

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace fermata {

// In which order generations are admitted and served.
enum class SchedulePolicy {
  kPriority,  // (priority, arrival)
  kFcfs,      // arrival alone; priorities are kept and shown, but do not order
};

// Which generations may share the KV of a common beginning.
enum class PrefixSharing {
  kOff,
  kTenant,  // those of one tenant: nobody can find out, by timing, what another one's prompts begin with
  kAll,
};

// Whether a newcomer may take the slot of a running generation that is strictly less urgent.
enum class Displacement { kRunning, kNever };

// A kind of traffic with caps of its own. A class that is not configured is a label without caps.
struct TrafficClass {
  static constexpr int32_t kNoCap = std::numeric_limits<int32_t>::max();

  std::string name;
  int32_t max_running = kNoCap;    // generations in one step
  int32_t max_kv_blocks = kNoCap;  // device blocks of those not paused; reached, nobody of it is given new ones
  int32_t reserved = 0;            // slots that no other class can take
  int32_t max_queued = kNoCap;     // newcomers in QUEUED
};

struct EngineOptions {
  // Behaviour.
  SchedulePolicy policy = SchedulePolicy::kPriority;
  Displacement displacement = Displacement::kRunning;
  PrefixSharing prefix_sharing = PrefixSharing::kOff;
  // Whether KV may be dropped, and computed again later, where blocks run out and no tier has room for it. Else a
  // generation ends with ERROR for it. What is PAUSED is never dropped.
  bool allow_recompute = false;

  absl::Duration disconnect_lease = absl::Minutes(10);  // how long a pause by disconnect waits for a reader
  std::vector<TrafficClass> classes;                    // in any order

  // Whoever waits is admitted as if its priority were one level more urgent for every `aging` that it has waited, at
  // most `aging_levels` levels, and keeps that until it waits anew. It displaces nobody by that. Infinite: off.
  absl::Duration aging = absl::InfiniteDuration();
  int32_t aging_levels = 10;

  // Bounds. Each is named by its flag in the error of whoever meets it.
  int32_t max_running = 64;                         // generations in one step
  int32_t max_queued = 10000;                       // newcomers in QUEUED
  int32_t max_live = 100000;                        // all that are not finished
  int32_t context_tokens = 2048;                    // prompt + max_tokens of one generation
  int32_t max_finished = 10000;                     // finished ones kept for GetGeneration and Attach
  absl::Duration finished_age = absl::Minutes(10);  // and for how long

  // Performance.
  int32_t block_tokens = 16;     // tokens in one KV block
  int32_t block_count = 1024;    // blocks in the device pool
  int32_t host_block_count = 0;  // in the host's pool; 0: there is no such tier
  int64_t disk_block_count = 0;  // in files; 0 likewise
  int32_t step_tokens = 2048;    // tokens computed in one step, over all generations
  // One that gives way gives at least so many blocks, or all that it has: else every block that somebody lacks would be
  // waited for by itself.
  int32_t least_demotion_blocks = 16;

  // Revisions start here, so that they never repeat over restarts: the process's start time in microseconds.
  int64_t first_revision = 1;

  // Whom a generation of this traffic class counts with: an index into `classes`, or classes.size() for those that are
  // not configured. 0 <= result < class_count().
  int32_t ClassIndex(absl::string_view traffic_class) const;
  int32_t class_count() const { return static_cast<int32_t>(classes.size()) + 1; }

  // INVALID_ARGUMENT naming the flag and the allowed range.
  absl::Status Validate() const;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_ENGINE_OPTIONS_H_
