// Takes what the engine reports and brings it to those who wait for it.

#ifndef FERMATA_ENGINE_RUNTIME_PUBLISHER_H_
#define FERMATA_ENGINE_RUNTIME_PUBLISHER_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "engine/core/commands.h"
#include "engine/core/report.h"
#include "engine/runtime/engine_stats.h"
#include "engine/runtime/event_log.h"
#include "engine/runtime/report_observer.h"
#include "engine/runtime/token_log.h"

namespace fermata {

// Called with a command's reply on the publisher's thread; must not block. `log` is the output of the generation of the
// first result, null if there is none. After a shutdown before the command took effect: null reply.
using ReplyCallback = std::function<void(const Reply* reply, std::shared_ptr<TokenLog> log)>;

// One thread of its own. It owns the token logs: one for each generation, from its first event until the engine forgets
// it. It never waits for a reader, so the engine, which waits for it only when it is far behind, does not either.
class Publisher {
 public:
  // `stats` and `observer` (null: none) must outlive this. The first report with events has a revision above
  // `revision`.
  Publisher(EngineStats& stats, int64_t revision, ReportObserver* observer);

  // Stop() must have been called.
  ~Publisher();

  // Keeps `callback` for the reply with the ticket that it returns. Any thread.
  Ticket Expect(ReplyCallback callback);

  // The command was not sent after all. False: it is too late, Stop() has called the callback or will. Any thread.
  bool Forget(Ticket ticket);

  // Takes in a report of the engine, made at `now`; `step_duration` of the step that it is about, zero for a boundary.
  // It is published after the next Flush(). The engine's thread.
  void Push(Report report, absl::Time now, absl::Duration step_duration);

  // Hands over what has been pushed, and wakes the publisher once for all of it. Waits while kMaxPending reports are
  // pending. The engine's thread, which flushes whatever it has pushed before it ends.
  void Flush();

  // What happened, for those who watch. Any thread.
  EventLog& event_log() { return event_log_; }

  // Publishes what is pending, answers the callbacks that are left with null, and ends the thread.
  void Stop();

 private:
  static constexpr size_t kMaxPending = 1024;

  struct Pending {
    Report report;
    absl::Time now;
    absl::Duration step_duration;
  };

  void Loop();

  // Appends what has happened and answers the replies.
  void Publish(Pending pending);

  // Calls all who wait for what has been appended.
  void Wake();

  // Both append to logs and remember in touched_ whom to wake.
  void PublishEvent(Event& event, int64_t step, WatchedBatch& batch);
  void PublishStateChange(const StateChanged& change, int64_t step);

  void Answer(const Reply& reply);

  // What is kept of a generation that is known.
  struct Known {
    std::shared_ptr<TokenLog> log;
    std::shared_ptr<const WatchedIdentity> identity;
  };
  const Known& Find(GenerationKey key) const;

  // Remembers the log of what has been appended to, if a reader waits.
  void Touch(const Known& known, bool reader_waits);

  EngineStats& stats_;
  ReportObserver* const observer_;
  EventLog event_log_;
  std::vector<Pending> pushed_;  // not flushed; the engine's thread alone

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Pending> pending_;  // guarded by mutex_, as are the next three
  bool stopping_ = false;
  int64_t next_ticket_ = 1;
  absl::flat_hash_map<Ticket, ReplyCallback> callbacks_;

  // The publisher's thread alone.
  absl::flat_hash_map<GenerationKey, Known> known_;
  std::vector<std::shared_ptr<TokenLog>> touched_;

  std::thread thread_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_PUBLISHER_H_
