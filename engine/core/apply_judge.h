// Works out what a list of operations would come to, without doing them: what makes an Apply atomic.

#ifndef FERMATA_ENGINE_CORE_APPLY_JUDGE_H_
#define FERMATA_ENGINE_CORE_APPLY_JUDGE_H_

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "engine/core/commands.h"
#include "engine/core/engine_state.h"
#include "engine/core/ids.h"
#include "engine/core/verb_rules.h"

namespace fermata {

// The ids of the live (or chosen) generations that match, in order of arrival. O(all).
std::vector<GenerationId> Select(const EngineState& state, const Selector& selector);

// Keeps, beside the engine's state, how the generations that were judged would stand: each operation is judged on the
// outcome of those before. The engine must not change meanwhile. Used once.
class ApplyJudge {
 public:
  // Borrows `state`.
  explicit ApplyJudge(const EngineState& state) : state_(state), occupancy_(OccupancyOf(state)) {}

  // One result for each id that is meant, without generations: what doing the operations would answer.
  std::vector<OperationResult> JudgeAll(const std::vector<Operation>& operations);

 private:
  template <typename Verb>
  void JudgeOne(const Verb& verb, std::vector<OperationResult>& results);
  void JudgeOne(const EnqueueCommand& command, std::vector<OperationResult>& results);

  Standing Find(const GenerationId& id) const;

  // The generation stands so from now on.
  void Set(const GenerationId& id, const Standing& before, const Standing& after);

  // As the free function, on what generations have come to.
  std::vector<GenerationId> SelectNow(const Selector& selector) const;

  const EngineState& state_;
  Occupancy occupancy_;
  absl::flat_hash_map<GenerationId, Standing> changed_;
  std::vector<GenerationId> created_;  // in order
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_APPLY_JUDGE_H_
