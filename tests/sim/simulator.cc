#include "tests/sim/simulator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

// No storm lasts longer than this without commands, whatever it left behind.
constexpr int kMaxTurnsToEnd = 20000;
constexpr int kTurnsBetweenContinues = 50;

}  // namespace

Simulator::Simulator(const SimulatorOptions& options)
    : options_(options),
      random_(options.seed),
      engine_options_(Storm::RandomOptions(random_)),
      fault_period_(random_.OneIn(3) ? random_.Uniform(20, 200) : 0),
      // A step that fails would hide a bug planted in its batch.
      faults_(fault_period_ > 0 && options.bug == Bug::kNone),
      runner_(RunnerOptions()),
      engine_(engine_options_, decoder_),
      observer_(engine_options_, decoder_, violations_),
      oracle_(engine_options_, violations_),
      storm_(engine_options_, random_, observer_, oracle_),
      carrier_(random_, runner_, faults_ && random_.OneIn(2) ? 8 : 0, faults_ && random_.OneIn(4) ? 8 : 0),
      bug_planter_(options.bug),
      trace_(options.verbose) {}

std::string Simulator::ReplayCommand(const SimulatorOptions& options) {
  return absl::StrCat("tools/simulate --seed=", options.seed, " --steps=", options.steps, " --verbose");
}

FakeModelRunnerOptions Simulator::RunnerOptions() {
  FakeModelRunnerOptions options;
  options.block_count = engine_options_.block_count;
  options.host_block_count = engine_options_.host_block_count;
  options.block_tokens = engine_options_.block_tokens;
  options.max_step_tokens = engine_options_.step_tokens;
  options.max_rows = engine_options_.max_running;
  options.before_run = [this](const Batch&) {
    return faults_ && random_.OneIn(fault_period_) ? absl::InternalError("the device is gone") : absl::OkStatus();
  };
  options.before_sample = [this](const BatchSlice&) {
    return faults_ && random_.OneIn(fault_period_) ? absl::InternalError("logits are no numbers") : absl::OkStatus();
  };
  return options;
}

bool Simulator::Check() {
  for (const std::string& violation : runner_.violations()) violations_.Add(violation);
  const absl::Status status = engine_.CheckInvariants();
  if (!status.ok()) violations_.Add(std::string(status.message()));
  return violations_.empty();
}

void Simulator::Advance() {
  const absl::Time timer = engine_.NextTimer();
  if (timer > now_ && timer < absl::InfiniteFuture() && random_.OneIn(20)) {
    // Not a nanosecond early.
    now_ = random_.OneIn(2) ? timer : std::max(now_, timer - absl::Nanoseconds(1));
    return;
  }
  now_ += absl::Microseconds(random_.Uniform(0, 4000));
}

void Simulator::Turn(std::vector<Command> commands) {
  Advance();
  // First of all, so that it is clear on what state of things the clients' commands act.
  const std::vector<Command> done = carrier_.Done();
  commands.insert(commands.begin(), done.begin(), done.end());
  trace_.Add(commands);
  Report boundary = engine_.Boundary(now_, commands);
  bug_planter_.OnReport(boundary);
  carrier_.Take(boundary);
  trace_.Add(boundary);
  observer_.OnBoundary(now_, boundary);
  if (violations_.empty()) oracle_.OnBoundary(now_, commands, boundary);
  for (const AcceptedTurn& accepted : oracle_.world().turns()) observer_.OnTurn(accepted.key, accepted.turn);
  if (violations_.empty()) observer_.CheckGivingWay(boundary);
  if (!Check()) return;
  const bool has_work = engine_.HasWork();
  const Batch* batch = engine_.Prepare(now_);
  if (has_work != (batch != nullptr)) violations_.Add("HasWork() and Prepare() do not agree");
  if (batch != nullptr) RunBatch(*batch);
}

void Simulator::RunBatch(const Batch& batch) {
  trace_.Add(batch);
  observer_.OnBatch(batch);
  // The runner gets a copy, so that a bug can be planted.
  std::vector<BatchSlice> slices(batch.slices.begin(), batch.slices.end());
  bug_planter_.OnBatch(slices);
  const absl::Status status = runner_.Run({.step = batch.step, .slices = slices}, &output_);
  now_ += absl::Microseconds(random_.Uniform(0, 2000));
  ++steps_;
  Report step = engine_.Complete(now_, status, output_);
  bug_planter_.OnReport(step);
  carrier_.Take(step);
  trace_.Add(step);
  observer_.OnStep(now_, step);
  if (violations_.empty()) oracle_.OnStep(now_, observer_.generations(), step);
  Check();
}

void Simulator::LetEverythingEnd() {
  faults_ = false;
  carrier_.EndFaults();
  trace_.Add("no more commands");
  for (int turn = 0; turn < kMaxTurnsToEnd && observer_.live_count() > 0 && violations_.empty(); ++turn) {
    Turn(turn % kTurnsBetweenContinues == 0 ? storm_.ContinueAll() : std::vector<Command>());
  }
  if (!violations_.empty()) return;
  if (observer_.live_count() > 0) violations_.Add(absl::StrCat(observer_.live_count(), " generations never end"));
  if (engine_.HasWork() || engine_.active_count() > 0) violations_.Add("the engine has work, but nobody lives");
  for (int turn = 0; turn < kMaxTurnsToEnd && !carrier_.idle() && violations_.empty(); ++turn) Turn({});
  if (!carrier_.idle() || engine_.move_count() > 0) violations_.Add("nobody lives, and something moves");
  if (runner_.file_count() > 0) violations_.Add(absl::StrCat(runner_.file_count(), " files are left"));
}

SimulatorResult Simulator::Run() {
  for (int turn = 0; turn < options_.steps && violations_.empty(); ++turn) Turn(storm_.Commands());
  if (violations_.empty()) LetEverythingEnd();
  return {.violations = violations_.list(),
          .totals = observer_.totals(),
          .steps = steps_,
          .trace_hash = trace_.hash(),
          .bug_was_planted = bug_planter_.planted()};
}

}  // namespace fermata
