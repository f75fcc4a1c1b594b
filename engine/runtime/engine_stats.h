// How fast the engine is, as GetEngine says it.

#ifndef FERMATA_ENGINE_RUNTIME_ENGINE_STATS_H_
#define FERMATA_ENGINE_RUNTIME_ENGINE_STATS_H_

#include <cstdint>
#include <deque>
#include <mutex>
#include <utility>

#include "absl/time/time.h"

namespace fermata {

// Written by the publisher, read by any thread.
class EngineStats {
 public:
  struct Snapshot {
    absl::Duration step_duration;  // moving average; zero: no step yet
    double tokens_per_second = 0;  // output tokens over the last kWindow
  };

  static constexpr absl::Duration kWindow = absl::Seconds(5);

  // A step that ended at `now`.
  void AddStep(absl::Time now, absl::Duration duration, int64_t output_tokens);

  Snapshot Get(absl::Time now) const;

 private:
  mutable std::mutex mutex_;
  absl::Duration step_duration_;                       // guarded by mutex_, as are the next
  std::deque<std::pair<absl::Time, int64_t>> tokens_;  // per slice of time, within the window
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_ENGINE_STATS_H_
