// Says what a boundary must do: every reply and every event, from the commands and the clock. Written from the contract
// of the verbs (commands.h), with none of the engine's code.

#ifndef FERMATA_TESTS_SIM_VERB_ORACLE_H_
#define FERMATA_TESTS_SIM_VERB_ORACLE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/core/commands.h"
#include "engine/core/engine_options.h"
#include "engine/core/report.h"
#include "tests/sim/observed_generation.h"
#include "tests/sim/violations.h"

namespace fermata {

// What one generation is expected to be, beyond what reports show.
struct ExpectedGeneration {
  GenerationKey key{};
  GenerationId id;
  std::string digest;
  GenerationSpec spec;
  GenerationState state = GenerationState::kNone;
  int64_t output_token_count = 0;
  bool has_kv = false;
  int64_t reader_count = 0;
  PauseInfo pause;
  absl::Time create_time;
  absl::Time finish_time;
};

class VerbOracle {
 public:
  // Borrows `violations`, which must outlive this.
  VerbOracle(const EngineOptions& options, Violations& violations) : options_(options), violations_(violations) {}

  // Compares the report of a boundary at `now` with what `commands` and timers must have done.
  void OnBoundary(absl::Time now, const std::vector<Command>& commands, const Report& report);

  // Learns what a step did, after `generations` have seen its report; checks what it forgot.
  void OnStep(absl::Time now, const ObservedGenerations& generations, const Report& report);

  // All that is known to the engine, by key.
  const std::map<GenerationKey, ExpectedGeneration>& generations() const { return by_key_; }
  bool draining() const { return draining_; }

  // The keys that have readers now.
  std::vector<GenerationKey> WithReaders() const;

 private:
  // What an event of a boundary must be.
  struct ExpectedEvent {
    GenerationKey key{};
    std::optional<int32_t> priority;  // set: PriorityChanged, the rest is not looked at
    GenerationState from = GenerationState::kNone;
    GenerationState to = GenerationState::kNone;
    Cause cause = Cause::kEnqueue;
  };

  void On(const EnqueueCommand& command);
  void On(const PreemptCommand& command);
  void On(const ContinueCommand& command);
  void On(const AbortCommand& command);
  void On(const SetPriorityCommand& command);
  void On(const AttachCommand& command);
  void On(const DetachCommand& command);
  void On(const GetGenerationCommand& command);
  void On(const ListGenerationsCommand& command);
  void On(const GetEngineCommand& command);
  void On(const DrainCommand& command);
  void On(const AbortAllCommand& command);

  // The next reply, checked to be for `ticket`; null, and a violation, if there is none.
  const Reply* NextReply(Ticket ticket);

  // The results of the next reply, checked to be one for each of `ids`; null, and a violation, if they are not.
  const std::vector<OperationResult>* NextResults(Ticket ticket, const std::vector<GenerationId>& ids);

  // Does `verb` (which returns the code that it must have) to each id, and compares the results.
  template <typename Verb>
  void ForEach(Ticket ticket, const std::vector<GenerationId>& ids, Verb verb);

  absl::StatusCode CodeOfNew(const EnqueueCommand& command) const;
  void Begin(const EnqueueCommand& command, GenerationKey key);
  void AddReader(ExpectedGeneration& generation);
  void HoldByControl(ExpectedGeneration& generation, const std::string& reason);
  void ReleaseAll(ExpectedGeneration& generation, Cause cause);
  void Move(ExpectedGeneration& generation, GenerationState to, Cause cause);
  void FireTimers();

  void CheckResult(const OperationResult& result, absl::StatusCode code, const ExpectedGeneration* generation);
  void CheckInfo(const GenerationInfo& info, const ExpectedGeneration& generation);
  void CheckEvents(const Report& report);
  void CheckForgotten(const Report& report);

  ExpectedGeneration* Find(const GenerationId& id);
  int64_t CountIn(GenerationState state) const;

  const EngineOptions options_;
  Violations& violations_;
  std::map<GenerationKey, ExpectedGeneration> by_key_;
  std::map<GenerationId, GenerationKey> by_id_;
  std::deque<GenerationKey> finished_;  // in order of finish
  GenerationKey last_key_{-1};
  bool draining_ = false;

  // Of the boundary being compared.
  absl::Time now_;
  const Report* report_ = nullptr;
  size_t next_reply_ = 0;
  std::vector<ExpectedEvent> events_;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_VERB_ORACLE_H_
