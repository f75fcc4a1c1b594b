// Clients without mercy: makes the commands of a simulation, from a seed.

#ifndef FERMATA_TESTS_SIM_STORM_H_
#define FERMATA_TESTS_SIM_STORM_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/core/commands.h"
#include "engine/core/engine_options.h"
#include "engine/core/generation_spec.h"
#include "tests/sim/observer.h"
#include "tests/sim/sim_random.h"
#include "tests/sim/verb_oracle.h"

namespace fermata {

// Arrivals of all sizes and priorities, some too large; verbs in their right order and in any other: doubled, late (on
// finished and forgotten ids), early (on ids to come), unknown, on many ids at once and on the same id twice; readers
// that come back at an offset of theirs, lag, vanish, and leave where they never were; storms and lulls; a drain.
// Orchestrators too: selectors, lists of verbs, leases, sessions that are kept alive, taken over, closed and left to
// die, callers of an older epoch.
class Storm {
 public:
  // What prompts that begin alike have at a position.
  static TokenId AlikeToken(int64_t position) { return TokenId{static_cast<int32_t>(position % 7)}; }

  // The engine of a seed: small in every bound, so that every bound is met.
  static EngineOptions RandomOptions(SimRandom& random);

  // Borrows all; they must outlive this. Tells `observer` what it asks for.
  Storm(const EngineOptions& options, SimRandom& random, Observer& observer, const VerbOracle& oracle);

  // What the clients send between two steps.
  std::vector<Command> Commands();

  // What ends all pauses (an operator does it): nobody does anything else any more.
  std::vector<Command> ContinueAll();

 private:
  // What a client has asked for under an id.
  struct Request {
    GenerationId id;
    GenerationSpec spec;
    std::string digest;
    bool hold = false;
  };

  EnqueueCommand MakeEnqueue();
  Operation MakeVerb();
  ContinueCommand MakeContinueWithMore();
  Command MakeApply();
  Command MakeSession();
  Command MakeReader();
  Command MakeQuestion();

  Request NewRequest();
  GenerationSpec RandomSpec();
  std::vector<GenerationId> RandomIds();

  // Both at times nothing: most verbs name ids, and most are an operator's.
  std::optional<Selector> RandomSelector();
  Caller RandomCaller();
  Lease RandomLease();
  KvTier RandomTier();
  GenerationId RandomId();
  int32_t RandomPriority() { return static_cast<int32_t>(random_.Uniform(-1, 3)); }
  Ticket NextTicket() { return Ticket{++last_ticket_}; }

  const EngineOptions options_;
  SimRandom& random_;
  Observer& observer_;
  const VerbOracle& oracle_;

  // The temper of this seed: one in so many.
  const int64_t hold_period_;
  const int64_t abort_period_;
  const int64_t timeout_period_;
  const int64_t session_period_;
  const int64_t drain_turn_;  // 0: never
  const bool aborts_all_;     // some turns after the drain

  std::vector<Request> requests_;
  int64_t last_ticket_ = 0;
  int64_t turn_ = 0;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_STORM_H_
