// Compares what a boundary did, every reply and every event, with what it should have done.

#ifndef FERMATA_TESTS_SIM_VERB_ORACLE_H_
#define FERMATA_TESTS_SIM_VERB_ORACLE_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "engine/core/commands.h"
#include "engine/core/engine_options.h"
#include "engine/core/report.h"
#include "tests/sim/expected_world.h"
#include "tests/sim/observed_generation.h"
#include "tests/sim/violations.h"

namespace fermata {

class VerbOracle {
 public:
  // Borrows `violations`, which must outlive this.
  VerbOracle(const EngineOptions& options, Violations& violations)
      : options_(options), violations_(violations), world_(options) {}

  // Compares the report of a boundary at `now` with what `commands` and timers must have done.
  void OnBoundary(absl::Time now, const std::vector<Command>& commands, const Report& report);

  // Learns what a step did, after `generations` have seen its report; checks what it forgot.
  void OnStep(absl::Time now, const ObservedGenerations& generations, const Report& report);

  // All that should be known to the engine.
  const ExpectedWorld& world() const { return world_; }

  // The keys that have readers now.
  std::vector<GenerationKey> WithReaders() const;

 private:
  // A verb by itself.
  template <typename Verb>
  void On(const Verb& command);

  void On(const ApplyCommand& command);
  void On(const OpenSessionCommand& command);
  void On(const KeepSessionAliveCommand& command);
  void On(const CloseSessionCommand& command);
  void On(const AttachCommand& command);
  void On(const DetachCommand& command) { world_.Detach(command.key); }
  void On(const GetGenerationCommand& command);
  void On(const ListGenerationsCommand& command);
  void On(const GetEngineCommand& command);
  void On(const SnapshotCommand& command) { snapshots_.push_back(command.ticket); }
  void On(const DrainCommand&) { world_.Drain(); }
  void On(const KvMoveDone&) {}
  void On(const RestoreCommand&) {}
  void On(const ParkAllCommand&) {}
  void On(const AbortAllCommand&) { world_.AbortAll(); }

  // The next reply, checked to be for `ticket`; null, and a violation, if there is none.
  const Reply* NextReply(Ticket ticket);

  // What the next reply holds, checked to be a Result and not an error; null, and a violation, if it is not.
  template <typename Result>
  const Result* NextResult(Ticket ticket);

  // Checks that the next reply is an error with this code and a message.
  void ExpectError(Ticket ticket, absl::StatusCode code);

  void Compare(Ticket ticket, const std::vector<ExpectedResult>& expected);
  void Compare(const OperationResult& result, const ExpectedResult& expected);
  void CompareSession(Ticket ticket, const SessionInfo& expected);
  void CheckSnapshot(Ticket ticket);
  void CheckInfo(const GenerationInfo& info, const ExpectedGeneration& generation);
  void CheckEvents(const Report& report);
  void CheckForgotten(const Report& report);

  const EngineOptions options_;
  Violations& violations_;
  ExpectedWorld world_;

  // Of the boundary being compared.
  absl::Time now_;
  const Report* report_ = nullptr;
  size_t next_reply_ = 0;
  std::vector<Ticket> snapshots_;  // asked for
};

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_VERB_ORACLE_H_
