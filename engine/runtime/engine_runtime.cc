#include "engine/runtime/engine_runtime.h"

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"

namespace fermata {

EngineRuntime::EngineRuntime(const Options& options, const TokenDecoder& decoder, std::unique_ptr<ModelRunner> runner,
                             const Clock& clock)
    : options_(options),
      clock_(clock),
      start_time_(clock.Now()),
      queue_(options.max_pending_commands),
      publisher_(stats_, options.engine.first_revision, options.observer),
      engine_(options.engine, decoder),
      runner_(std::move(runner)),
      thread_([this] { Loop(); }) {}

EngineRuntime::~EngineRuntime() { Shutdown("the server has ended"); }

absl::Status EngineRuntime::Send(Command command, Ticket ticket) {
  if (queue_.TryPush(std::move(command))) return absl::OkStatus();
  // A shutdown meanwhile has answered it: one answer is enough.
  if (!publisher_.Forget(ticket)) return absl::OkStatus();
  if (shut_down_) return absl::UnavailableError("the server is shutting down");
  return absl::ResourceExhaustedError(
      absl::StrCat("too many commands wait for the engine: ", queue_.capacity(), " are allowed"));
}

bool EngineRuntime::AwaitDrained(absl::Duration timeout) {
  std::unique_lock<std::mutex> lock(drain_mutex_);
  return drain_changed_.wait_for(lock, absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(24))),
                                 [this] { return drained_; });
}

void EngineRuntime::Shutdown(const std::string& reason) {
  if (shut_down_.exchange(true)) return;
  // The last of all commands, so that nothing is made after it that nobody would finish.
  queue_.Close(AbortAllCommand{reason});
  // After that: whoever sees it takes all commands too.
  stopping_ = true;
  thread_.join();
  publisher_.Stop();
}

void EngineRuntime::Loop() {
  while (true) {
    // Read before the queue is, so that AbortAll is taken before the loop ends.
    const bool stopping = stopping_;
    RunBoundary();
    if (stopping) return;
    if (const Batch* batch = engine_.Prepare(clock_.Now())) {
      RunStep(*batch);
    } else {
      queue_.Wait(engine_.NextTimer() - clock_.Now());
    }
  }
}

void EngineRuntime::RunBoundary() {
  std::vector<Command> commands = queue_.TakeAll();
  draining_ |= absl::c_any_of(commands, [](const Command& c) { return std::holds_alternative<DrainCommand>(c); });
  const absl::Time now = clock_.Now();
  Report report = engine_.Boundary(now, std::move(commands));
  if (!report.empty()) publisher_.Push(std::move(report), now, absl::ZeroDuration());
  if (draining_) NoteDrained();
}

void EngineRuntime::RunStep(const Batch& batch) {
  const absl::Time begin = clock_.Now();
  const absl::Status status = runner_->Run(batch, &output_);
  const absl::Time end = clock_.Now();
  publisher_.Push(engine_.Complete(end, status, output_), end, end - begin);
}

void EngineRuntime::NoteDrained() {
  if (engine_.active_count() > 0) return;
  {
    const std::lock_guard<std::mutex> lock(drain_mutex_);
    drained_ = true;
  }
  drain_changed_.notify_all();
}

}  // namespace fermata
