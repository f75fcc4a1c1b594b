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
#include <vector>

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
#include "engine/runtime/kv_mover.h"
#include "engine/runtime/kv_tiers.h"
#include "engine/runtime/publisher.h"

namespace fermata {

// Two threads (and KvMover's two, where KV has other tiers): the engine's, which owns the Engine and the ModelRunner,
// and the publisher's. Idle, both are blocked. All public methods may be called from any thread.
class EngineRuntime {
 public:
  struct Options {
    EngineOptions engine;
    std::string backend = "cpu";  // what computes, as GetEngine tells it
    size_t max_pending_commands = 65536;
    ReportObserver* observer = nullptr;  // borrowed, must outlive the runtime; null: none

    // Memory and files for engine.host_block_count and engine.disk_block_count. What is found on disk is PAUSED before
    // anything else is done.
    KvTiers tiers = {};
    absl::Duration park_timeout = absl::Minutes(5);  // for Shutdown() to write everything to the disk
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

  // With a disk tier: pauses what lives and parks it there. Finishes what lives else with ABORTED and `reason`,
  // publishes that, and ends the threads: the engine's, then the publisher's. Called a second time: no change.
  void Shutdown(const std::string& reason);

  // What happened, for those who watch.
  EventLog& event_log() { return publisher_.event_log(); }

  EngineStats::Snapshot stats() const { return stats_.Get(clock_.Now()); }
  const EngineOptions& options() const { return options_.engine; }
  const std::string& backend() const { return options_.backend; }
  absl::Time start_time() const { return start_time_; }

 private:
  absl::Status Send(Command command, Ticket ticket);
  void Loop();
  void RunBoundary();

  // To the mover, and to the publisher, which publishes it right before the next step or at its begin.
  void Hand(Report report, absl::Time now, absl::Duration step_duration);
  void RunStep(Batch batch);

  // Tells AwaitDrained() if a drain is over, and Shutdown() if all is parked.
  void NoteDrained();
  void NoteParked();

  // The generations found on disk, but for those that are impossible.
  std::vector<Command> RestoreCommands() const;

  const Options options_;
  const TokenDecoder& decoder_;
  const Clock& clock_;
  const absl::Time start_time_;
  CommandQueue queue_;
  EngineStats stats_;
  Publisher publisher_;
  Engine engine_;  // the engine's thread alone, as are the next three
  std::unique_ptr<ModelRunner> runner_;
  std::unique_ptr<KvMover> mover_;  // null: there are no other tiers
  StepOutput output_;
  bool draining_ = false;
  bool parking_ = false;

  std::mutex drain_mutex_;
  std::condition_variable drain_changed_;
  bool parked_ = false;   // all that could be parked is; guarded likewise
  bool drained_ = false;  // a drain was asked for, and nothing is active; guarded by drain_mutex_

  std::atomic<bool> shut_down_ = false;  // Shutdown() was called
  std::atomic<bool> stopping_ = false;   // the loop is to end
  std::thread thread_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_ENGINE_RUNTIME_H_
