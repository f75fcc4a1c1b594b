#include "engine/runtime/engine_runtime.h"

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "engine/core/unpark.h"
#include "glog/logging.h"

namespace fermata {
namespace {

std::unique_ptr<KvMover> MakeMover(const EngineRuntime::Options& options, ModelRunner& runner, CommandQueue& queue) {
  if (options.engine.host_block_count == 0 && options.engine.disk_block_count == 0) return nullptr;
  return std::make_unique<KvMover>(runner, options.tiers.host.get(), options.tiers.disk.get(),
                                   [&queue](KvMoveDone done) { queue.TryPush(std::move(done)); });
}

}  // namespace

EngineRuntime::EngineRuntime(const Options& options, const TokenDecoder& decoder, std::unique_ptr<ModelRunner> runner,
                             const Clock& clock)
    : options_(options),
      decoder_(decoder),
      clock_(clock),
      start_time_(clock.Now()),
      queue_(options.max_pending_commands),
      publisher_(stats_, options.engine.first_revision, options.observer),
      engine_(options.engine, decoder),
      runner_(std::move(runner)),
      mover_(MakeMover(options_, *runner_, queue_)),
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
  if (options_.tiers.disk != nullptr && queue_.TryPush(ParkAllCommand{reason})) {
    std::unique_lock<std::mutex> lock(drain_mutex_);
    drain_changed_.wait_for(lock, absl::ToChronoNanoseconds(options_.park_timeout), [this] { return parked_; });
  }
  // The last of all commands, so that nothing is made after it that nobody would finish.
  queue_.Close(AbortAllCommand{.reason = reason, .keep_parked = true});
  // After that: whoever sees it takes all commands too.
  stopping_ = true;
  thread_.join();
  if (mover_ != nullptr) mover_->Stop();
  publisher_.Stop();
}

std::vector<Command> EngineRuntime::RestoreCommands() const {
  std::vector<Command> commands;
  if (options_.tiers.disk == nullptr) return commands;
  const EngineOptions& engine = options_.engine;
  for (const KvDisk::Refused& refused : options_.tiers.disk->refused()) {
    LOG(WARNING) << refused.path << " is not accepted: " << refused.status;
  }
  for (const KvDisk::Found& found : options_.tiers.disk->found()) {
    const absl::Status status = CheckParked(found.parked, found.block_count, engine.block_tokens, engine.context_tokens,
                                            decoder_.vocabulary_size());
    if (status.ok()) {
      commands.push_back(RestoreCommand{found.parked, found.block_count});
    } else {
      LOG(WARNING) << "what is parked on disk is not accepted: " << status;
    }
  }
  if (!commands.empty()) LOG(INFO) << commands.size() << " parked generations were found on disk";
  return commands;
}

void EngineRuntime::Loop() {
  Hand(engine_.Boundary(start_time_, RestoreCommands()), start_time_, absl::ZeroDuration());
  while (true) {
    // Read before the queue is, so that AbortAll is taken before the loop ends.
    const bool stopping = stopping_;
    RunBoundary();
    const Batch* batch = stopping ? nullptr : engine_.Prepare(clock_.Now());
    if (batch != nullptr) {
      RunStep(*batch);
      continue;
    }
    publisher_.Flush();
    if (stopping) return;
    queue_.Wait(engine_.NextTimer() - clock_.Now());
  }
}

void EngineRuntime::RunBoundary() {
  std::vector<Command> commands = queue_.TakeAll();
  draining_ |= absl::c_any_of(commands, [](const Command& c) { return std::holds_alternative<DrainCommand>(c); });
  parking_ |= absl::c_any_of(commands, [](const Command& c) { return std::holds_alternative<ParkAllCommand>(c); });
  const absl::Time now = clock_.Now();
  Hand(engine_.Boundary(now, std::move(commands)), now, absl::ZeroDuration());
  if (draining_) NoteDrained();
  if (parking_) NoteParked();
}

void EngineRuntime::Hand(Report report, absl::Time now, absl::Duration step_duration) {
  if (mover_ != nullptr) mover_->Take(report);
  if (!report.empty()) publisher_.Push(std::move(report), now, step_duration);
}

void EngineRuntime::RunStep(Batch batch) {
  // Once a turn, with the last step's report, and as late as may be: whoever is woken wants a core, and wakes others.
  // Best of all when a device computes and this thread has nothing to do.
  if (runner_->CallsLaunched()) {
    batch.launched = [this] { publisher_.Flush(); };
  } else {
    publisher_.Flush();
  }
  const absl::Time begin = clock_.Now();
  const absl::Status status = runner_->Run(batch, &output_);
  const absl::Time end = clock_.Now();
  Hand(engine_.Complete(end, status, output_), end, end - begin);
}

void EngineRuntime::NoteParked() {
  if (engine_.move_count() > 0) return;
  {
    const std::lock_guard<std::mutex> lock(drain_mutex_);
    parked_ = true;
  }
  drain_changed_.notify_all();
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
