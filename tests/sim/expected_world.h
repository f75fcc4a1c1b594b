// What the engine should know of generations and sessions, and what verbs and timers should make of it. Written from
// the contract of the verbs (commands.h), with none of the engine's code.

#ifndef FERMATA_TESTS_SIM_EXPECTED_WORLD_H_
#define FERMATA_TESTS_SIM_EXPECTED_WORLD_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/core/commands.h"
#include "engine/core/engine_options.h"
#include "engine/core/report.h"
#include "tests/fakes/fake_model.h"

namespace fermata {

// What one generation is expected to be, beyond what reports show.
struct ExpectedGeneration {
  GenerationKey key{};
  GenerationId id;
  std::string digest;
  GenerationSpec spec;
  GenerationState state = GenerationState::kNone;
  int64_t output_token_count = 0;
  int64_t appended_token_count = 0;
  std::string append_id;                           // of the last append
  FinishReason held_finish = FinishReason::kNone;  // how it would have ended, while it is held on stop
  bool has_kv = false;
  int64_t reader_count = 0;
  PauseInfo pause;
  absl::Time create_time;
  absl::Time finish_time;
};

// What an event of a boundary must be.
struct ExpectedEvent {
  GenerationKey key{};
  std::optional<int32_t> priority;  // set: PriorityChanged, the rest is not looked at
  GenerationState from = GenerationState::kNone;
  GenerationState to = GenerationState::kNone;
  Cause cause = Cause::kEnqueue;
};

// What a verb must answer for one id: a code, and with OK the generation.
struct ExpectedResult {
  GenerationId id;
  absl::StatusCode code = absl::StatusCode::kOk;
  std::optional<ExpectedGeneration> generation;
  bool created = false;
};

// A paused generation was given more to do.
struct AcceptedTurn {
  GenerationKey key{};
  FakeTurn turn;
};

struct ExpectedSession {
  int64_t epoch = 0;
  absl::Duration ttl;
  absl::Time expire_time;
};

// A value: a copy is a world to try things in.
class ExpectedWorld {
 public:
  explicit ExpectedWorld(const EngineOptions& options) : options_(options), next_epoch_(options.first_revision) {}

  // A boundary begins.
  void Begin(absl::Time now);

  // Each does a verb, and appends what it must answer.
  void Do(const EnqueueCommand& command, std::vector<ExpectedResult>& results);
  void Do(const PreemptCommand& command, std::vector<ExpectedResult>& results);
  void Do(const ContinueCommand& command, std::vector<ExpectedResult>& results);
  void Do(const AbortCommand& command, std::vector<ExpectedResult>& results);
  void Do(const SetPriorityCommand& command, std::vector<ExpectedResult>& results);
  void Do(const AttachCommand& command, std::vector<ExpectedResult>& results);
  void Do(const GetGenerationCommand& command, std::vector<ExpectedResult>& results);

  // Whether a caller may do verbs at all.
  absl::StatusCode CodeOf(const Caller& caller) const;

  // nullopt: it is refused with ALREADY_EXISTS.
  std::optional<SessionInfo> Open(const OpenSessionCommand& command);
  SessionInfo KeepAlive(const std::string& session_id);
  SessionInfo Close(const std::string& session_id);

  void Detach(GenerationKey key);
  void Drain() { draining_ = true; }
  void AbortAll();
  void FireTimers();

  // The engine did this by itself: in a step; or, to end a standstill, at a boundary.
  void SetState(GenerationKey key, GenerationState state, Cause cause, absl::Time now);
  void EndStandstill(GenerationKey key);

  // Likewise at a boundary: it gives its blocks to a more urgent one; its KV cannot be read back from the disk.
  void Displace(GenerationKey key);
  void LoseKv(GenerationKey key);

  // Likewise: its KV is dropped, and it is computed again.
  void DropKv(GenerationKey key) {
    if (by_key_.contains(key)) by_key_.at(key).has_kv = false;
  }
  void SetComputed(GenerationKey key, int64_t output_token_count, bool has_kv);

  // The keys that the engine must forget by now, in their order; they are forgotten here too.
  std::vector<GenerationKey> Forget(absl::Time now);

  const std::map<GenerationKey, ExpectedGeneration>& generations() const { return by_key_; }
  const std::map<std::string, ExpectedSession>& sessions() const { return sessions_; }
  const std::vector<ExpectedEvent>& events() const { return events_; }  // of this boundary
  const std::vector<AcceptedTurn>& turns() const { return turns_; }     // likewise
  bool draining() const { return draining_; }
  int64_t CountIn(GenerationState state) const {
    return absl::c_count_if(by_key_, [state](const auto& entry) { return entry.second.state == state; });
  }

 private:
  struct Due;

  template <typename Command, typename Verb>
  void ForEach(const Command& command, std::vector<ExpectedResult>& results, Verb verb);
  template <typename Verb>
  void ForOne(const GenerationId& id, std::vector<ExpectedResult>& results, Verb verb);

  absl::StatusCode CodeOfNew(const EnqueueCommand& command) const;

  // Whether so many tokens have room in the context, the pool and the class.
  bool Fits(int64_t tokens, const std::string& traffic_class) const;
  const TrafficClass* FindClass(const std::string& name) const;
  ExpectedGeneration& Create(const EnqueueCommand& command);
  ExpectedGeneration* Find(const GenerationId& id);
  std::vector<GenerationId> Select(const Selector& selector) const;
  void AddReader(ExpectedGeneration& generation);
  void Resume(ExpectedGeneration& generation, Cause cause);
  void EndControlHold(ExpectedGeneration& generation, Cause cause);
  void Move(ExpectedGeneration& generation, GenerationState to, Cause cause);
  void NoteFinish(ExpectedGeneration& generation);
  std::optional<Due> NextDue() const;

  EngineOptions options_;
  std::map<GenerationKey, ExpectedGeneration> by_key_;
  std::map<GenerationId, GenerationKey> by_id_;
  std::map<std::string, ExpectedSession> sessions_;
  std::deque<GenerationKey> finished_;  // in order of finish
  std::vector<ExpectedEvent> events_;
  std::vector<AcceptedTurn> turns_;
  int64_t next_key_ = 0;
  int64_t next_epoch_;
  bool draining_ = false;
  absl::Time now_;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_EXPECTED_WORLD_H_
