// Watches an engine from outside, by its batches and reports alone, and says what breaks a promise.

#ifndef FERMATA_TESTS_SIM_OBSERVER_H_
#define FERMATA_TESTS_SIM_OBSERVER_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "absl/time/time.h"
#include "engine/core/engine_options.h"
#include "engine/core/generation_spec.h"
#include "engine/core/model_runner.h"
#include "engine/core/report.h"
#include "engine/core/token_decoder.h"
#include "tests/sim/observed_generation.h"
#include "tests/sim/violations.h"

namespace fermata {

// Knows nothing of the engine's inside: what it holds of each generation is the sum of what was reported. Checks legal
// moves, offsets, pauses, finishes, usage, revisions and steps; the output, against an undisturbed run; and with an
// OrderChecker and a JointOrderChecker who runs, and who gives way.
class Observer {
 public:
  // Sums over all generations, forgotten ones too.
  struct Totals {
    int64_t generations = 0;
    int64_t finished = 0;  // by themselves: STOP or LENGTH
    int64_t tokens = 0;
    int64_t pauses = 0;
    int64_t displacements = 0;
    int64_t moves = 0;  // of KV
    int64_t parts = 0;  // of those: that left some of it where it was
    int64_t trims = 0;  // blocks without KV given back
    int64_t drops = 0;  // likewise
    int64_t stalls = 0;
    int64_t out_of_blocks = 0;  // ended with ERROR for it
  };

  // Borrows `decoder` and `violations`, which must outlive this.
  Observer(const EngineOptions& options, const TokenDecoder& decoder, Violations& violations)
      : options_(options), decoder_(decoder), violations_(violations) {}

  // A generation may begin under this id, as this.
  void Expect(const GenerationId& id, const GenerationSpec& spec) { expected_[id] = spec; }

  // Before a step: what is about to run.
  void OnBatch(const Batch& batch);

  // A boundary's report; a step's, after its OnBatch().
  void OnBoundary(absl::Time now, const Report& report);

  // After the boundary at which it was accepted.
  void OnTurn(GenerationKey key, const FakeTurn& turn);

  // After the turns: who has lost its place or its blocks at the boundary, and for whom.
  void CheckGivingWay(const Report& boundary);
  void OnStep(absl::Time now, const Report& report);

  const ObservedGenerations& generations() const { return generations_; }
  const Totals& totals() const { return totals_; }
  int64_t live_count() const;

 private:
  void CheckSlice(const BatchSlice& slice);

  // Where blocks can be accounted for from outside: those that run take what there is, in their order.
  void GrowRunning();

  // The first slice of a generation may begin behind what the prefix cache has.
  void NoteCached(const BatchSlice& slice);
  void OnReport(absl::Time now, const Report& report);

  void On(const StateChanged& event);
  void On(const TokenSampled& event);
  void On(const TextReleased& event);
  void On(const Progress& event);
  void On(const PriorityChanged& event);
  void On(const KvMoved& event);

  // At a boundary.
  void OnTrimmed(const Progress& event, ObservedGeneration& generation);

  int64_t ComputedBlockCount(const ObservedGeneration& generation) const;

  void Begin(const StateChanged& event);
  void CheckCause(const StateChanged& event);
  void CheckFinish(const ObservedGeneration& generation, const GenerationInfo& info);
  void CheckOutput(const ObservedGeneration& generation, FinishReason reason);
  void CheckInfo(const ObservedGeneration& generation, const GenerationInfo& info);

  // After a step: whoever was in it has said what it did.
  void CheckProgress();

  // Null, and a violation, if it is unknown or finished: nothing may be said of such a one any more.
  ObservedGeneration* FindLive(GenerationKey key);

  const EngineOptions options_;
  const TokenDecoder& decoder_;
  Violations& violations_;
  std::map<GenerationId, GenerationSpec> expected_;
  ObservedGenerations generations_;
  std::set<GenerationId> moving_;  // whose KV is, or may be, on its way
  Totals totals_;
  absl::Time now_;
  int64_t step_ = 0;
  int64_t revision_ = 0;  // 0: none yet

  // Of the step under way.
  bool in_step_ = false;
  bool has_dropped_ = false;                   // somebody's KV, since the last step
  std::map<GenerationKey, int64_t> shares_;    // tokens computed
  std::set<GenerationKey> samples_;            // must get a token, or an error
  std::map<GenerationKey, int64_t> progress_;  // prompt tokens reported
  std::set<GenerationKey> sampled_;            // got a token
};

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_OBSERVER_H_
