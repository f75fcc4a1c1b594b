// The whole engine in one thread, under a storm of clients that a seed makes.

#ifndef FERMATA_TESTS_SIM_SIMULATOR_H_
#define FERMATA_TESTS_SIM_SIMULATOR_H_

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/core/engine.h"
#include "tests/fakes/fake_model_runner.h"
#include "tests/fakes/fake_token_decoder.h"
#include "tests/sim/observer.h"

namespace fermata {

// Bugs that can be planted between the engine and whoever watches it, to show that the simulation finds them.
enum class Mutation {
  kNone,
  kSwapBlocks,        // a generation computes in another one's block
  kRepeatToken,       // a token is reported twice
  kTokenWhilePaused,  // a token of a paused generation is reported
  kDropFinish,
  kRepeatFinish,
  kSkipRevision,
  kForgetPosition,  // a decode computes the token after the one that is due
  kWrongAck,        // an acknowledgement counts one token too many
  kLoseText,
};

struct SimulatorOptions {
  uint64_t seed = 1;
  int steps = 400;  // with commands; then everything must come to an end
  Mutation mutation = Mutation::kNone;
  bool verbose = false;
};

struct SimulatorResult {
  std::vector<std::string> violations;  // empty: every promise was kept
  int64_t steps = 0;
  int64_t generations = 0;
  int64_t displacements = 0;
  int64_t pauses = 0;
  uint64_t trace_hash = 0;
};

class Simulator {
 public:
  explicit Simulator(const SimulatorOptions& options);

  // Runs until the end, or until the first violation.
  SimulatorResult Run();

 private:
  // What a client knows of a generation that it has asked for.
  struct Client {
    GenerationId id;
    GenerationSpec spec;
    std::string digest;
    bool hold = false;
  };

  static EngineOptions RandomOptions(std::mt19937_64& random);
  FakeModelRunnerOptions RunnerOptions();

  int64_t Uniform(int64_t least, int64_t most);
  bool OneIn(int64_t n) { return Uniform(1, n) == 1; }

  // Adds a few random commands.
  void MakeCommands();
  void MakeEnqueue();
  void MakeVerb();
  void MakeReader();
  GenerationSpec RandomSpec();
  std::vector<GenerationId> RandomIds();
  Ticket NextTicket() { return Ticket{++last_ticket_}; }

  // One turn of the engine's loop.
  void Turn(bool with_commands);
  void RunBatch(const Batch& batch);
  void CountReaders(const Report& report);
  void Observe(Report report, bool is_step);
  void Mutate(Report& report);

  // No more commands but what lets everything end.
  void LetEverythingEnd();

  bool failed() const { return !violations_.empty(); }
  void Collect();

  const SimulatorOptions options_;
  std::mt19937_64 random_;
  const EngineOptions engine_options_;
  FakeTokenDecoder decoder_;
  FakeModelRunner runner_;
  Engine engine_;
  Observer observer_;

  absl::Time now_ = absl::FromUnixSeconds(1700000000);
  std::vector<Command> commands_;
  std::vector<Client> clients_;
  std::map<GenerationKey, int64_t> readers_;  // counted by the engine, as its replies say
  std::map<Ticket, bool> attach_tickets_;     // of commands whose success counts a reader
  StepOutput output_;
  int64_t last_ticket_ = 0;
  int64_t steps_ = 0;
  bool draining_ = false;
  bool faults_ = false;   // the model fails now and then
  bool mutated_ = false;  // the bug has been planted
  TokenSampled last_token_;
  std::vector<std::string> violations_;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_SIMULATOR_H_
