#include "engine/core/timer_queue.h"

namespace fermata {

void TimerQueue::Set(const Timer& timer) {
  if (timer.time != absl::InfiniteFuture()) timers_.insert(timer);
}

void TimerQueue::Cancel(const Timer& timer) { timers_.erase(timer); }

std::optional<Timer> TimerQueue::PopDue(absl::Time now) {
  if (timers_.empty() || timers_.begin()->time > now) return std::nullopt;
  const Timer timer = *timers_.begin();
  timers_.erase(timers_.begin());
  return timer;
}

absl::Time TimerQueue::next() const { return timers_.empty() ? absl::InfiniteFuture() : timers_.begin()->time; }

}  // namespace fermata
