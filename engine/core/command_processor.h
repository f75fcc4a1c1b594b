// Applies commands: what clients may ask for, and every answer that they can get.

#ifndef FERMATA_ENGINE_CORE_COMMAND_PROCESSOR_H_
#define FERMATA_ENGINE_CORE_COMMAND_PROCESSOR_H_

#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "engine/core/commands.h"
#include "engine/core/engine_state.h"
#include "engine/core/generation.h"
#include "engine/core/life_cycle.h"

namespace fermata {

// The commands' contracts are in commands.h. Between two steps only.
class CommandProcessor {
 public:
  // Borrows both; they must outlive this.
  CommandProcessor(EngineState& state, LifeCycle& life_cycle) : state_(state), life_cycle_(life_cycle) {}

  // Applies one command, whole. O(the ids it names), O(kMaxScanned) for a list, O(all) for AbortAll.
  void Apply(Command command);

 private:
  void On(EnqueueCommand& command);
  void On(PreemptCommand& command);
  void On(ContinueCommand& command);
  void On(AbortCommand& command);
  void On(SetPriorityCommand& command);
  void On(AttachCommand& command);
  void On(DetachCommand& command);
  void On(GetGenerationCommand& command);
  void On(ListGenerationsCommand& command);
  void On(GetEngineCommand& command);
  void On(DrainCommand& command);
  void On(AbortAllCommand& command);

  // Does `verb` to each of `ids` and replies with one result for each: NOT_FOUND for unknown ones, the verb's error, or
  // the generation as it is when the verb is done.
  void ForEach(Ticket ticket, const std::vector<GenerationId>& ids, absl::FunctionRef<absl::Status(Generation&)> verb);

  // Whether a new generation may come in; the error names the limit.
  absl::Status CheckNew(const EnqueueCommand& command) const;
  absl::Status CheckFits(const EnqueueCommand& command) const;
  absl::Status CheckRoom(const EnqueueCommand& command) const;

  // Fills in a record for `command` and starts its life.
  Generation& Create(EnqueueCommand& command);

  // Counts one reader more.
  void AddReader(Generation& generation);

  // A copy as it is now.
  OperationResult ResultOf(const Generation& generation) const;

  EngineState& state_;
  LifeCycle& life_cycle_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_COMMAND_PROCESSOR_H_
