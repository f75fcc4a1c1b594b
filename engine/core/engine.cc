#include "engine/core/engine.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/check.h"
#include "engine/core/command_processor.h"
#include "engine/core/engine_state.h"
#include "engine/core/invariant_checker.h"
#include "engine/core/kv_ladder.h"
#include "engine/core/life_cycle.h"
#include "engine/core/residency.h"
#include "engine/core/scheduler.h"
#include "engine/core/step_results.h"

namespace fermata {

class Engine::Impl {
 public:
  Impl(const EngineOptions& options, const TokenDecoder& decoder)
      : state_(options, decoder),
        residency_(state_),
        life_cycle_(state_, residency_),
        scheduler_(state_, life_cycle_),
        ladder_(state_, residency_, life_cycle_, scheduler_),
        commands_(state_, life_cycle_, ladder_),
        results_(state_, life_cycle_) {}

  void Boundary(absl::Time now, std::vector<Command> commands) {
    FERMATA_CHECK(prepared_ == nullptr);
    state_.journal.SetNow(now);
    for (Command& command : commands) commands_.Apply(std::move(command));
    // After the commands, so that whoever renews in time wins.
    FireTimers(now);
    ladder_.Plan();
    BreakStandstill();
    is_settled_ = true;
    commands_.AnswerSnapshots();
    Forget(now);
  }

  const Batch* Prepare(absl::Time now) {
    FERMATA_CHECK(prepared_ == nullptr);
    state_.journal.SetNow(now);
    // Asked first, so that an engine whose every block is held back does not even look at who waits.
    FERMATA_CHECK(is_settled_);
    if (!scheduler_.HasWork()) return nullptr;
    prepared_ = &scheduler_.PrepareStep();
    FERMATA_CHECK(!prepared_->slices.empty());
    return prepared_;
  }

  void Complete(absl::Time now, const absl::Status& status, const StepOutput& output) {
    FERMATA_CHECK(prepared_ != nullptr);
    is_settled_ = false;
    state_.journal.SetNow(now);
    state_.journal.CompleteStep();
    results_.Apply(*std::exchange(prepared_, nullptr), scheduler_.batch_generations(), status, output);
    Forget(now);
  }

  void RunStep(absl::Time now, ModelRunner& runner) {
    const Batch* batch = Prepare(now);
    if (batch == nullptr) return;
    const absl::Status status = runner.Run(*batch, &output_);
    Complete(now, status, output_);
  }

  Report TakeReport() { return state_.journal.Take(); }

  const EngineState& state() const { return state_; }
  // What has run gets its blocks at the next boundary.
  bool HasWork() { return (!is_settled_ && !state_.running.empty()) || scheduler_.HasWork(); }
  bool step_is_prepared() const { return prepared_ != nullptr; }

 private:
  // Where everybody lacks blocks that others hold, the least urgent gives way: the head of the order makes progress.
  void BreakStandstill() {
    // What is on its way may change that, and so may another try to write to the disk.
    while (state_.moves.empty() && state_.disk_retry_time <= state_.journal.now()) {
      Generation* victim = scheduler_.StandstillVictim();
      if (victim == nullptr) return;
      if (state_.options.allow_recompute) {
        life_cycle_.Drop(*victim);
      } else {
        life_cycle_.Finish(*victim, FinishReason::kError, Cause::kError, OutOfBlocks(*victim));
      }
      ladder_.Plan();
    }
  }

  std::string OutOfBlocks(const Generation& generation) const {
    std::string message = absl::StrCat(
        "it gives its KV blocks to a more urgent one, for no tier has room for them: the device pool (--kv_bytes) has ",
        state_.pool.block_count(), ", the host's (--kv_host_bytes) ", state_.host_pool.block_count(),
        ", the disk (--kv_disk_bytes) ", state_.options.disk_block_count);
    if (generation.class_index < static_cast<int32_t>(state_.options.classes.size())) {
      const TrafficClass& own = state_.options.classes[generation.class_index];
      absl::StrAppend(&message, "; --class=", own.name, " allows max_kv_blocks=", own.max_kv_blocks);
    }
    return absl::StrCat(message, "; with --allow_recompute it would be computed again instead");
  }

  // In order of time, those of generations and of sessions alike.
  void FireTimers(absl::Time now) {
    while (true) {
      if (state_.sessions.next_expiry() < state_.timers.next()) {
        if (state_.sessions.next_expiry() > now) return;
        // A copy: the table's own is gone when the session is.
        commands_.EndSession(std::string(state_.sessions.first_to_expire()));
        continue;
      }
      const std::optional<Timer> timer = state_.timers.PopDue(now);
      if (!timer.has_value()) return;
      Fire(*timer);
    }
  }

  void Fire(const Timer& timer) {
    // Timers of finished ones are cancelled, so it is known and lives.
    Generation& generation = *state_.table.Find(timer.key);
    switch (timer.kind) {
      case TimerKind::kTimeout:
        life_cycle_.Finish(
            generation, FinishReason::kDeadline, Cause::kTimeout,
            absl::StrCat("its timeout of ", absl::FormatDuration(generation.spec.timeout), " has passed"));
        break;
      case TimerKind::kLease:
        life_cycle_.EndControlHold(generation, Cause::kLease);
        break;
      case TimerKind::kAging:
        life_cycle_.Age(generation);
        break;
      case TimerKind::kDisconnectLease:
        life_cycle_.Finish(generation, FinishReason::kAborted, Cause::kDisconnect,
                           absl::StrCat("no reader came back within --disconnect_lease=",
                                        absl::FormatDuration(state_.options.disconnect_lease)));
        break;
    }
  }

  // At the end only: until then replies and batches may refer to what has finished.
  void Forget(absl::Time now) {
    state_.table.Forget(now, state_.journal.forgotten());
    state_.count(GenerationState::kFinished) = state_.table.finished_count();
  }

  EngineState state_;
  Residency residency_;
  LifeCycle life_cycle_;
  Scheduler scheduler_;
  KvLadder ladder_;
  CommandProcessor commands_;
  StepResults results_;
  const Batch* prepared_ = nullptr;  // the step being run
  bool is_settled_ = false;          // a boundary came after the last step
  StepOutput output_;                // of RunStep(); kept for its memory
};

Engine::Engine(const EngineOptions& options, const TokenDecoder& decoder)
    : impl_(std::make_unique<Impl>(options, decoder)) {
  FERMATA_CHECK(options.Validate().ok());
}

Engine::~Engine() = default;

Report Engine::Boundary(absl::Time now, std::vector<Command> commands) {
  impl_->Boundary(now, std::move(commands));
  return impl_->TakeReport();
}

const Batch* Engine::Prepare(absl::Time now) { return impl_->Prepare(now); }

Report Engine::Complete(absl::Time now, const absl::Status& status, const StepOutput& output) {
  impl_->Complete(now, status, output);
  return impl_->TakeReport();
}

Report Engine::Step(absl::Time now, std::vector<Command> commands, ModelRunner& runner) {
  impl_->Boundary(now, std::move(commands));
  impl_->RunStep(now, runner);
  return impl_->TakeReport();
}

bool Engine::HasWork() const { return impl_->HasWork(); }

absl::Time Engine::NextTimer() const {
  const EngineState& state = impl_->state();
  const absl::Time retry = state.disk_retry_time > state.journal.now() ? state.disk_retry_time : absl::InfiniteFuture();
  return std::min({state.timers.next(), state.sessions.next_expiry(), state.table.next_forget_time(), retry});
}

int64_t Engine::move_count() const { return static_cast<int64_t>(impl_->state().moves.size()); }

int64_t Engine::active_count() const { return impl_->state().active_count(); }

absl::Status Engine::CheckInvariants() const {
  return fermata::CheckInvariants(impl_->state(), impl_->step_is_prepared());
}

}  // namespace fermata
