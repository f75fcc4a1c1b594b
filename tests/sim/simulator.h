// The whole engine in one thread, under a storm of clients that a seed makes.

#ifndef FERMATA_TESTS_SIM_SIMULATOR_H_
#define FERMATA_TESTS_SIM_SIMULATOR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/core/engine.h"
#include "tests/fakes/fake_model_runner.h"
#include "tests/fakes/fake_token_decoder.h"
#include "tests/sim/bug_planter.h"
#include "tests/sim/kv_carrier.h"
#include "tests/sim/observer.h"
#include "tests/sim/sim_random.h"
#include "tests/sim/storm.h"
#include "tests/sim/trace.h"
#include "tests/sim/verb_oracle.h"
#include "tests/sim/violations.h"

namespace fermata {

struct SimulatorOptions {
  uint64_t seed = 1;
  int steps = 500;  // turns of the loop with commands; then everything must come to an end by itself
  Bug bug = Bug::kNone;
  bool verbose = false;  // tells the whole story on the standard output
};

struct SimulatorResult {
  std::vector<std::string> violations;  // empty: every promise was kept
  Observer::Totals totals;
  int64_t steps = 0;
  uint64_t trace_hash = 0;
  bool bug_was_planted = false;
};

// A turn is what the engine's thread does: a boundary with commands, and a step if there is work. After each, the
// engine's own invariants, the model's findings, an Observer and a VerbOracle are asked. Deterministic.
class Simulator {
 public:
  explicit Simulator(const SimulatorOptions& options);

  // Runs until the end, or until the first violation. Call it once.
  SimulatorResult Run();

  // The command that runs it again.
  static std::string ReplayCommand(const SimulatorOptions& options);

 private:
  FakeModelRunnerOptions RunnerOptions();
  void Turn(std::vector<Command> commands);
  void RunBatch(const Batch& batch);

  // No more commands but Continue, no more faults: everything must finish.
  void LetEverythingEnd();

  // Lets time pass: usually a little, sometimes up to the next timer or to just before it.
  void Advance();

  // True if nothing is wrong so far. Asks the engine and the model too.
  bool Check();

  const SimulatorOptions options_;
  SimRandom random_;
  const EngineOptions engine_options_;
  const int64_t fault_period_;  // one step and one row in so many fails; 0: none
  bool faults_ = false;
  FakeTokenDecoder decoder_;
  FakeModelRunner runner_;
  Engine engine_;
  Violations violations_;
  Observer observer_;
  VerbOracle oracle_;
  Storm storm_;
  KvCarrier carrier_;
  BugPlanter bug_planter_;
  Trace trace_;

  absl::Time now_ = absl::FromUnixSeconds(1700000000);
  StepOutput output_;
  int64_t steps_ = 0;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_SIMULATOR_H_
