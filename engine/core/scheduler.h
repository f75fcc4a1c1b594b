// Makes the next step: shows the policy what there is, applies its plan, and lays out the batch.

#ifndef FERMATA_ENGINE_CORE_SCHEDULER_H_
#define FERMATA_ENGINE_CORE_SCHEDULER_H_

#include <vector>

#include "absl/types/span.h"
#include "engine/core/engine_state.h"
#include "engine/core/generation.h"
#include "engine/core/life_cycle.h"
#include "engine/core/model_runner.h"
#include "engine/core/schedule_policy.h"

namespace fermata {

// A step costs O(what runs or starts to run), however many wait.
class Scheduler {
 public:
  // Borrows both; they must outlive this.
  Scheduler(EngineState& state, LifeCycle& life_cycle) : state_(state), life_cycle_(life_cycle) {}

  // True if PrepareStep() would find something to run. O(1) while something runs, else O(max_running).
  bool HasWork();

  // Where nobody can run, of all or of a class that is at its cap of blocks, because each lacks blocks that others
  // hold: who gives way, that is the least urgent, newest of those that hold some, RUNNING or waiting, but never the
  // head of their order. nullptr: all is well, or what is in the way is PAUSED or on its way. O(classes) while all is
  // well.
  Generation* StandstillVictim();

  // The head of a class of which nobody can run, for its cap of blocks: of those that run or lack blocks. nullptr: all
  // is well.
  const Generation* StuckHead(int32_t class_index) const;

  // How many blocks more than its class may still hold `generation` needs, RUNNING for its next token, else to start.
  int64_t ClassShortage(const Generation& generation) const;

  // Those that would be admitted, or brought back to the device, if blocks were no matter: most urgent first, those
  // alone that lack some. Who is on its way back counts as running. Valid until the next call.
  absl::Span<Generation* const> WantBlocks();

  // Displaces and admits, and returns the batch of the next step; empty if there is nothing to run. Valid until the
  // next call, and as long as no generation in it changes.
  const Batch& PrepareStep();

  // The generations of the last batch, one for each slice.
  absl::Span<Generation* const> batch_generations() const { return batch_generations_; }

 private:
  static constexpr int32_t kAll = -1;

  // What there is to give out now. Borrows class_budgets_.
  Budget MakeBudget();

  // The first of all that wait; behind everybody if nobody does.
  OrderKey MostUrgentWaiting() const;

  // Fill the candidates, and beside each its generation; of those that wait, `limit` of each queue.
  void ViewRunning();
  void ViewWaiting(int64_t limit, int64_t free_block_count);

  // Of one class, or with kAll of all: the most urgent one that is RUNNING or lacks blocks, nullptr if nobody does; and
  // the victim, given that.
  Generation* HeadOf(int32_t class_index) const;
  Generation* LeastUrgentHolder(int32_t class_index, const Generation& head) const;

  // `block_cost`: see EngineState::AdmissionCost(), or Candidate::missing_block_count of one that runs.
  Candidate MakeCandidate(const Generation& generation, int64_t block_cost) const;
  void AddSlice(Generation& generation, int32_t token_count);

  EngineState& state_;
  LifeCycle& life_cycle_;

  // Kept from step to step for their memory alone.
  std::vector<Candidate> running_;
  std::vector<Candidate> waiting_;
  std::vector<Generation*> running_generations_;
  std::vector<Generation*> waiting_generations_;
  std::vector<ClassBudget> class_budgets_;

  std::vector<Generation*> want_blocks_;
  std::vector<BatchSlice> slices_;
  std::vector<Generation*> batch_generations_;
  Batch batch_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_SCHEDULER_H_
