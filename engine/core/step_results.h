// Takes in what a step has computed: tokens, text, stops and failures.

#ifndef FERMATA_ENGINE_CORE_STEP_RESULTS_H_
#define FERMATA_ENGINE_CORE_STEP_RESULTS_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/core/engine_state.h"
#include "engine/core/generation.h"
#include "engine/core/life_cycle.h"
#include "engine/core/model_runner.h"
#include "engine/core/report.h"

namespace fermata {

class StepResults {
 public:
  // Borrows both; they must outlive this.
  StepResults(EngineState& state, LifeCycle& life_cycle) : state_(state), life_cycle_(life_cycle) {}

  // Applies the results of a batch: `generations` has one for each slice, all RUNNING. With `status` not OK all of them
  // finish with ERROR and `output` is not looked at. REQUIRES: else `output` has what StepOutput promises.
  void Apply(const Batch& batch, absl::Span<Generation* const> generations, const absl::Status& status,
             const StepOutput& output);

 private:
  // Why a token ends its generation; kNone if it does not.
  FinishReason ReasonToFinish(const Generation& generation, TokenId token, bool stop_string_found) const;

  // Counts the tokens of a slice as computed; returns how many of them were prompt or appended, and how many had been
  // computed before.
  Progress CountComputed(Generation& generation, int32_t token_count);

  // Puts the blocks that are full by now into the prefix cache.
  void ShareBlocks(Generation& generation);

  // Appends a sampled token, its text and its event. Returns ReasonToFinish.
  FinishReason AppendToken(Generation& generation, const SampledToken& sampled);

  void RecordProgress(Generation& generation, Progress progress);
  void FinishWithError(Generation& generation, const absl::Status& status);

  EngineState& state_;
  LifeCycle& life_cycle_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_STEP_RESULTS_H_
