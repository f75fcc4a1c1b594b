#include "engine/runtime/event_log.h"

#include <utility>

namespace fermata {

void EventLog::Append(WatchedBatch batch) {
  const std::lock_guard<std::mutex> lock(mutex_);
  last_ = batch.revision;
  event_count_ += batch.events.size();
  batches_.push_back(std::make_shared<const WatchedBatch>(std::move(batch)));
  // The newest stays, however large it is.
  while (event_count_ > max_events_ && batches_.size() > 1) {
    event_count_ -= batches_.front()->events.size();
    batches_.pop_front();
  }
}

void EventLog::WakeWatchers() {
  std::map<int64_t, std::function<void()>> waiting;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting.swap(waiting_);
  }
  for (const auto& [watcher, wake] : waiting) wake();
}

void EventLog::Close() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  WakeWatchers();
}

EventLog::Cursor EventLog::Enter(int64_t revision) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {.watcher = next_watcher_++, .revision = revision};
}

EventLog::Item EventLog::Read(Cursor& cursor, std::function<void()> wake) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (cursor.revision > last_ + 1) return Lost();
  if (cursor.revision == last_ + 1) {
    if (closed_) return Closed();
    waiting_[cursor.watcher] = std::move(wake);
    return std::monostate();
  }
  const int64_t index = cursor.revision - (last_ + 1 - static_cast<int64_t>(batches_.size()));
  if (index < 0) return Lost();
  ++cursor.revision;
  return batches_[index];
}

void EventLog::Leave(const Cursor& cursor) {
  const std::lock_guard<std::mutex> lock(mutex_);
  waiting_.erase(cursor.watcher);
}

int64_t EventLog::first_revision() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return last_ + 1 - static_cast<int64_t>(batches_.size());
}

int64_t EventLog::last_revision() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return last_;
}

}  // namespace fermata
