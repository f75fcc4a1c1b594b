// What is due when: timeouts and leases.

#ifndef FERMATA_ENGINE_CORE_TIMER_QUEUE_H_
#define FERMATA_ENGINE_CORE_TIMER_QUEUE_H_

#include <cstdint>
#include <optional>
#include <tuple>

#include "absl/container/btree_set.h"
#include "absl/time/time.h"
#include "engine/core/ids.h"

namespace fermata {

enum class TimerKind { kTimeout, kLease, kDisconnectLease, kAging };

// A timer is a value: whoever sets one keeps its time, and cancels it by giving the same value again.
struct Timer {
  absl::Time time;
  GenerationKey key{};
  TimerKind kind = TimerKind::kTimeout;

  friend bool operator<(const Timer& a, const Timer& b) {
    return std::tie(a.time, a.key, a.kind) < std::tie(b.time, b.key, b.kind);
  }
};

// Ordered, O(log n) for each change. Timers of the same instant are due in order of arrival of their generations.
class TimerQueue {
 public:
  // One in the infinite future is never due and takes no room.
  void Set(const Timer& timer);

  // No change if `timer` is not set.
  void Cancel(const Timer& timer);

  // Removes and returns the first timer that is due, its time not later than `now`; nothing if none is.
  std::optional<Timer> PopDue(absl::Time now);

  // InfiniteFuture if none is set.
  absl::Time next() const;

  bool Contains(const Timer& timer) const { return timers_.contains(timer); }
  int64_t size() const { return static_cast<int64_t>(timers_.size()); }

 private:
  absl::btree_set<Timer> timers_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_TIMER_QUEUE_H_
