// What happened, revision by revision, kept for those who watch.

#ifndef FERMATA_ENGINE_RUNTIME_EVENT_LOG_H_
#define FERMATA_ENGINE_RUNTIME_EVENT_LOG_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "engine/core/generation_state.h"
#include "engine/core/report.h"

namespace fermata {

// Whom an event is about. Shared by all events of a generation.
struct WatchedIdentity {
  std::string generation_id;
  std::string tenant;
  std::string traffic_class;
};

struct WatchedStateChange {
  GenerationState from = GenerationState::kNone;
  GenerationState to = GenerationState::kNone;
  Cause cause = Cause::kEnqueue;
};

struct WatchedEvent {
  std::shared_ptr<const WatchedIdentity> identity;
  std::variant<WatchedStateChange, Progress, PriorityChanged, KvMoved> event;
};

// A report of the engine: all that changed at one revision.
struct WatchedBatch {
  int64_t revision = 0;
  int64_t step = 0;
  absl::Duration step_duration;  // zero: a boundary without a step
  std::vector<WatchedEvent> events;
};

// The last batches, with consecutive revisions, bounded by the number of their events. One thread appends (the
// publisher's), any number of watchers read, each at its own pace: one that falls behind what is kept is told so, and
// costs nobody anything.
class EventLog {
 public:
  static constexpr size_t kMaxEvents = 1 << 18;

  // Where a watcher is. Made by Enter().
  struct Cursor {
    int64_t watcher = 0;   // tells watchers apart
    int64_t revision = 0;  // next one wanted
  };

  struct Lost {};    // what comes next is no longer kept
  struct Closed {};  // the server is ending
  // Nothing: all there is has been read.
  using Item = std::variant<std::monostate, std::shared_ptr<const WatchedBatch>, Lost, Closed>;

  // The first batch has a revision above `revision`.
  explicit EventLog(int64_t revision, size_t max_events = kMaxEvents) : max_events_(max_events), last_(revision) {}

  // For the publisher. WakeWatchers() follows the appends of a report, without any lock held; nothing follows Close().
  // REQUIRES: revisions rise by one.
  void Append(WatchedBatch batch);
  void WakeWatchers();
  void Close();

  // For watchers. Each Enter() is paired with a Leave(). The revision may be any: Read() says if it is not to be had.
  Cursor Enter(int64_t revision);

  // The next batch for `cursor`, which moves on. If there is none, `wake` is kept and called once when there may be
  // one, on the publisher's thread; it must not block.
  Item Read(Cursor& cursor, std::function<void()> wake);
  void Leave(const Cursor& cursor);

  // What can be had: from the first revision kept to one beyond the last.
  int64_t first_revision() const;
  int64_t last_revision() const;

 private:
  const size_t max_events_;
  mutable std::mutex mutex_;
  // All guarded by mutex_.
  std::deque<std::shared_ptr<const WatchedBatch>> batches_;
  size_t event_count_ = 0;
  int64_t last_;
  bool closed_ = false;
  int64_t next_watcher_ = 1;
  std::map<int64_t, std::function<void()>> waiting_;  // by Cursor::watcher
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_EVENT_LOG_H_
