// Where time comes from.

#ifndef FERMATA_ENGINE_RUNTIME_CLOCK_H_
#define FERMATA_ENGINE_RUNTIME_CLOCK_H_

#include <chrono>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace fermata {

// May be asked from any thread.
class Clock {
 public:
  virtual ~Clock() = default;

  // Never goes back and never jumps, whatever happens to the wall clock.
  virtual absl::Time Now() const = 0;
};

// The wall clock when it was made, plus the time that has passed since on a clock that is never set.
class MonotonicClock : public Clock {
 public:
  absl::Time Now() const override {
    return start_ + absl::FromChrono(std::chrono::steady_clock::now() - steady_start_);
  }

 private:
  const absl::Time start_ = absl::Now();
  const std::chrono::steady_clock::time_point steady_start_ = std::chrono::steady_clock::now();
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_CLOCK_H_
