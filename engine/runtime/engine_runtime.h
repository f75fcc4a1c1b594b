// The engine with its threads: what the services talk to.

#ifndef FERMATA_ENGINE_RUNTIME_ENGINE_RUNTIME_H_
#define FERMATA_ENGINE_RUNTIME_ENGINE_RUNTIME_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/core/commands.h"
#include "engine/core/engine.h"
#include "engine/core/engine_options.h"
#include "engine/core/model_runner.h"
#include "engine/core/token_decoder.h"
#include "engine/runtime/clock.h"
#include "engine/runtime/command_queue.h"
#include "engine/runtime/engine_stats.h"
#include "engine/runtime/publisher.h"

namespace fermata {

// Two threads: the engine's, which owns the Engine and the ModelRunner, and the publisher's. Idle, both are blocked.
// All public methods may be called from any thread.
class EngineRuntime {
 public:
  struct Options {
    EngineOptions engine;
    size_t max_pending_commands = 65536;
    ReportObserver* observer = nullptr;  // borrowed, must outlive the runtime; null: none
  };

  // Starts both threads. `decoder` and `clock` must outlive this. REQUIRES: options.engine.Validate() is OK.
  EngineRuntime(const Options& options, const TokenDecoder& decoder, std::unique_ptr<ModelRunner> runner,
                const Clock& clock);

  // Shutdown(), if it was not called.
  ~EngineRuntime();

  // Sends a command that has a reply; sets its ticket. The callback comes exactly once, on the publisher's thread (see
  // ReplyCallback). RESOURCE_EXHAUSTED if too many commands wait, UNAVAILABLE after Shutdown(): then it does not come.
  template <typename TypedCommand>
  absl::Status Submit(TypedCommand command, ReplyCallback callback) {
    command.ticket = publisher_.Expect(std::move(callback));
    const Ticket ticket = command.ticket;
    return Send(std::move(command), ticket);
  }

  // A reader that was counted has left.
  void Detach(GenerationKey key) { queue_.TryPush(DetachCommand{key}); }

  // Refuses new generations from now on, and lets the others go on.
  void Drain() { queue_.TryPush(DrainCommand()); }

  // Waits until nothing is queued or running, or `timeout` has passed. True: nothing is. REQUIRES: Drain() was called.
  bool AwaitDrained(absl::Duration timeout);

  // Finishes what lives with ABORTED and `reason`, publishes that, and ends both threads: the engine's, then the
  // publisher's. Called a second time: no change.
  void Shutdown(const std::string& reason);

  // What happened, for those who watch.
  EventLog& event_log() { return publisher_.event_log(); }

  EngineStats::Snapshot stats() const { return stats_.Get(clock_.Now()); }
  const EngineOptions& options() const { return options_.engine; }
  absl::Time start_time() const { return start_time_; }

 private:
  absl::Status Send(Command command, Ticket ticket);
  void Loop();
  void RunBoundary();
  void RunStep(const Batch& batch);

  // Tells AwaitDrained() if a drain is over.
  void NoteDrained();

  const Options options_;
  const Clock& clock_;
  const absl::Time start_time_;
  CommandQueue queue_;
  EngineStats stats_;
  Publisher publisher_;
  Engine engine_;  // the engine's thread alone, as are the next three
  std::unique_ptr<ModelRunner> runner_;
  StepOutput output_;
  bool draining_ = false;

  std::mutex drain_mutex_;
  std::condition_variable drain_changed_;
  bool drained_ = false;  // a drain was asked for, and nothing is active; guarded by drain_mutex_

  std::atomic<bool> shut_down_ = false;  // Shutdown() was called
  std::atomic<bool> stopping_ = false;   // the loop is to end
  std::thread thread_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_ENGINE_RUNTIME_H_
