// Drives an Engine by hand, step by step, with a model that says what it is told to.

#ifndef FERMATA_TESTS_CORE_ENGINE_HARNESS_H_
#define FERMATA_TESTS_CORE_ENGINE_HARNESS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/core/engine.h"

namespace fermata {

// Tokens 0 to 255 are bytes; kEnd is an end of generation without text.
class ByteDecoder : public TokenDecoder {
 public:
  static constexpr TokenId kEnd{256};

  ByteDecoder();
  int32_t vocabulary_size() const override { return 257; }
  absl::string_view Bytes(TokenId token) const override { return bytes_[Value(token)]; }
  bool IsEndOfGeneration(TokenId token) const override { return token == kEnd; }

 private:
  std::vector<std::string> bytes_;
};

// Samples script[key] byte by byte, then kFiller. Remembers what it was asked to run.
class ScriptedRunner : public ModelRunner {
 public:
  static constexpr TokenId kFiller{'x'};

  struct Row {
    GenerationKey key{};
    int32_t first_position = 0;
    int32_t token_count = 0;
    bool sample = false;
  };

  absl::Status Run(const Batch& batch, StepOutput* output) override;

  std::map<GenerationKey, std::vector<TokenId>> script;
  std::map<GenerationKey, absl::Status> row_errors;
  absl::Status next_status;  // of the next step
  std::vector<Row> rows;     // of the last step
};

// What Enqueue needs to know; the rest has defaults.
struct Job {
  int prompt_tokens = 4;
  int max_tokens = 8;
  int priority = 0;
  bool hold = false;
  bool attach_reader = false;
  OnDisconnect on_disconnect = OnDisconnect::kContinue;
  absl::Duration timeout = absl::InfiniteDuration();
  std::vector<std::string> stop = {};
  std::vector<TokenId> stop_token_ids = {};
  bool ignore_eos = false;
  std::string body = "body";
};

// Checks the engine's invariants after every call. Every call is a boundary of its own; no time passes but by
// Advance().
class EngineHarness {
 public:
  explicit EngineHarness(const EngineOptions& options = EngineOptions());

  // Each returns what the engine answers, for one id.
  OperationResult Enqueue(const std::string& id, const Job& job = Job());
  OperationResult Preempt(const std::string& id, const std::string& reason = "", KvTier tier = KvTier::kNone);
  OperationResult Continue(const std::string& id);
  OperationResult Abort(const std::string& id);
  OperationResult SetPriority(const std::string& id, int priority);
  OperationResult Attach(const std::string& id, int64_t offset = 0);
  OperationResult Get(const std::string& id);
  void Detach(const std::string& id);
  EngineInfo GetEngine();

  // Applies commands at one boundary.
  Report Boundary(std::vector<Command> commands = {});

  // Moves of KV that nobody has answered yet, oldest first, as "id DEVICE>HOST 2".
  std::vector<std::string> Moves() const;

  // The oldest of them is done, or has failed.
  Report FinishMove(absl::Status status = absl::OkStatus());

  // Every move is done at once, and what follows from it.
  void FinishMoves();

  const std::vector<KvMove>& moves() const { return moves_; }
  const std::vector<KvMoveId>& cancelled_moves() const { return cancelled_moves_; }
  const std::vector<std::string>& discarded_files() const { return discarded_files_; }
  const std::vector<KvMoved>& moved() const { return moved_; }

  // Runs one step, or `count`; returns the last report.
  Report Step(int count = 1);

  // Runs until there is no work. Fails the test if that takes more than 10,000 steps.
  void RunUntilIdle();

  // What the generation will say: bytes, then, with `end`, the end of generation.
  void Script(const std::string& id, absl::string_view bytes, bool end = false);

  void Advance(absl::Duration duration) { now_ += duration; }
  absl::Time now() const { return now_; }

  // Ids in the last step's batch, in its order.
  std::vector<std::string> Batch() const;

  // Tokens computed for `id` in the last step; 0 if it was not in it.
  int BatchTokens(const std::string& id) const;

  // Ids in the order of their first RUNNING; ids in the order of their finish.
  const std::vector<std::string>& started() const { return started_; }
  const std::vector<std::string>& finished() const { return finished_; }

  // All text and tokens of `id` so far.
  const std::string& Text(const std::string& id) { return text_[Key(id)]; }
  const std::vector<TokenId>& Tokens(const std::string& id) { return tokens_[Key(id)]; }

  GenerationState State(const std::string& id) { return Get(id).generation->state; }
  GenerationKey Key(const std::string& id) const { return keys_.at(id); }

  Engine& engine() { return engine_; }
  ScriptedRunner& runner() { return runner_; }

 private:
  OperationResult One(Command command);
  void Take(const Report& report);

  ByteDecoder decoder_;
  ScriptedRunner runner_;
  Engine engine_;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  std::map<std::string, GenerationKey> keys_;
  std::map<GenerationKey, std::string> ids_;
  std::map<GenerationKey, std::string> text_;
  std::map<GenerationKey, std::vector<TokenId>> tokens_;
  std::vector<KvMove> moves_;
  std::vector<KvMoveId> cancelled_moves_;
  std::vector<std::string> discarded_files_;
  std::vector<KvMoved> moved_;
  std::vector<std::string> started_;
  std::vector<std::string> finished_;
};

// REQUIRES: a legal id.
GenerationId IdOf(absl::string_view text);

}  // namespace fermata

#endif  // FERMATA_TESTS_CORE_ENGINE_HARNESS_H_
