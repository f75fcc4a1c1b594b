// The deterministic engine: generations, order, blocks and steps. The same calls with the same arguments give the same
// results: no clock, no threads, no randomness, no I/O. One thread owns an Engine and everything in it.
//
// A turn of the loop, as the engine's thread runs it:
//
//   Report boundary = engine.Boundary(now, commands);        // results are in; commands, in order; then timers
//   ... hand `boundary` out: acknowledgements do not wait for the next forward pass ...
//   if (const Batch* batch = engine.Prepare(now)) {           // decide who runs
//     absl::Status status = runner.Run(*batch, &output);
//     Report step = engine.Complete(now, status, output);     // tokens, stops, finishes
//   }
//
// Step() is these three in one, for tests and simulations.
//
// Time is one monotonic value: the wall clock at the start of the process plus the time elapsed since on a clock that
// never jumps. `now` never goes back.

#ifndef FERMATA_ENGINE_CORE_ENGINE_H_
#define FERMATA_ENGINE_CORE_ENGINE_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/core/commands.h"
#include "engine/core/engine_options.h"
#include "engine/core/model_runner.h"
#include "engine/core/report.h"
#include "engine/core/token_decoder.h"

namespace fermata {

class Engine {
 public:
  // REQUIRES: options.Validate() is OK. `decoder` must outlive the engine.
  Engine(const EngineOptions& options, const TokenDecoder& decoder);
  ~Engine();

  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Applies `commands` in order, then every timer that is due. REQUIRES: no batch is being run.
  Report Boundary(absl::Time now, std::vector<Command> commands);

  // Decides who runs in the next step and returns its batch; nullptr if there is nothing to run. The batch is valid
  // until Complete(), which must follow. REQUIRES: a Boundary() since the last Complete(). State changes made here
  // (admission, displacement) are in Complete()'s report.
  const Batch* Prepare(absl::Time now);

  // Takes the results of the prepared batch. `status` not OK: every generation in the batch ends with ERROR.
  Report Complete(absl::Time now, const absl::Status& status, const StepOutput& output);

  // Boundary, and if there is something to run, Prepare, Run and Complete. One report: the boundary's events and
  // replies, then the step's.
  Report Step(absl::Time now, std::vector<Command> commands, ModelRunner& runner);

  // True if Prepare() would find something to run now.
  bool HasWork() const;

  // When the next timer is due: call Boundary() by then, even without commands. InfiniteFuture: never.
  absl::Time NextTimer() const;

  // Moves of KV that are under way.
  int64_t move_count() const;

  // Live generations that are not paused: 0 means that a drain is done.
  int64_t active_count() const;

  // Checks every invariant that ties the parts together (each live generation in exactly one queue, blocks held + free
  // = pool, counters equal to a recount, ...): O(everything), for tests. INTERNAL with what is broken.
  absl::Status CheckInvariants() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_ENGINE_H_
