// Applies commands: what clients may ask for, and every answer that they can get.

#ifndef FERMATA_ENGINE_CORE_COMMAND_PROCESSOR_H_
#define FERMATA_ENGINE_CORE_COMMAND_PROCESSOR_H_

#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "engine/core/commands.h"
#include "engine/core/engine_state.h"
#include "engine/core/generation.h"
#include "engine/core/kv_ladder.h"
#include "engine/core/life_cycle.h"

namespace fermata {

// The commands' contracts are in commands.h. Between two steps only.
class CommandProcessor {
 public:
  // Borrows both; they must outlive this.
  CommandProcessor(EngineState& state, LifeCycle& life_cycle, KvLadder& ladder)
      : state_(state), life_cycle_(life_cycle), ladder_(ladder) {}

  // Applies one command, whole. O(the ids it names), O(kMaxScanned) for a list, O(all) for a
  // selector and for AbortAll.
  void Apply(Command command);

  // Answers the snapshots that this boundary's commands have asked for: comes after all that changes something.
  void AnswerSnapshots();

  // Ends a live session, and its holds.
  void EndSession(const std::string& session_id);

 private:
  void On(EnqueueCommand& command);
  void On(PreemptCommand& command);
  void On(ContinueCommand& command);
  void On(AbortCommand& command);
  void On(SetPriorityCommand& command);
  void On(ApplyCommand& command);
  void On(OpenSessionCommand& command);
  void On(KeepSessionAliveCommand& command);
  void On(CloseSessionCommand& command);
  void On(AttachCommand& command);
  void On(DetachCommand& command);
  void On(GetGenerationCommand& command);
  void On(ListGenerationsCommand& command);
  void On(GetEngineCommand& command);
  void On(SnapshotCommand& command);
  void On(DrainCommand& command);
  void On(AbortAllCommand& command);
  void On(KvMoveDone& command);
  void On(RestoreCommand& command);
  void On(ParkAllCommand& command);

  template <typename Verb>
  void OnVerb(Verb& command);

  // Each does a verb whose caller is good and whose ids are resolved, and appends one result for each id: its error, or
  // the generation as it is when the verb is done.
  void Do(EnqueueCommand& command, std::vector<OperationResult>* results);
  void Do(PreemptCommand& command, std::vector<OperationResult>* results);
  void Do(ContinueCommand& command, std::vector<OperationResult>* results);
  void Do(AbortCommand& command, std::vector<OperationResult>* results);
  void Do(SetPriorityCommand& command, std::vector<OperationResult>* results);

  template <typename Verb>
  void ForEach(const Verb& command, std::vector<OperationResult>* results, absl::FunctionRef<void(Generation&)> act);

  // For commands that are no verbs: `act` judges, too.
  void ForOne(Ticket ticket, const GenerationId& id, absl::FunctionRef<absl::Status(Generation&)> act);

  // Puts what the selector chooses, where there is one, into the command's ids. Returns how many there are.
  template <typename Verb>
  int64_t Resolve(Verb& command) const;

  // Both answer the command with an error if it is so.
  bool Refused(Ticket ticket, const Caller& caller);
  bool TooMany(Ticket ticket, int64_t count);

  void Answer(Ticket ticket, std::vector<OperationResult> results);

  // As it is now; of one that has computed nothing, with what it would find in the prefix cache.
  GenerationInfo Describe(const Generation& generation) const;

  // Fills in a record for `command` and starts its life.
  Generation& Create(EnqueueCommand& command);

  // Counts one reader more.
  void AddReader(Generation& generation);

  EngineState& state_;
  LifeCycle& life_cycle_;
  KvLadder& ladder_;
  std::vector<Ticket> snapshots_;  // to be answered at the end of the boundary
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_COMMAND_PROCESSOR_H_
