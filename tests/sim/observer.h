// Watches an engine from outside, by its reports alone, and says what breaks a promise.

#ifndef FERMATA_TESTS_SIM_OBSERVER_H_
#define FERMATA_TESTS_SIM_OBSERVER_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/core/engine_options.h"
#include "engine/core/generation_spec.h"
#include "engine/core/model_runner.h"
#include "engine/core/report.h"
#include "engine/core/token_decoder.h"
#include "tests/fakes/fake_model.h"

namespace fermata {

// What is known of one generation.
struct ObservedGeneration {
  GenerationId id;
  GenerationSpec spec;  // its prompt is kept
  GenerationState state = GenerationState::kNone;
  std::vector<TokenId> tokens;
  std::string text;
  int64_t last_token_step = 0;
  int64_t pause_step = 0;  // at which it was last paused
  int64_t prefilled_token_count = 0;
  int64_t pause_count = 0;
  int64_t preemption_count = 0;
  int64_t finish_count = 0;
  bool has_kv = false;  // some of it was computed
};

// Knows nothing of the engine's inside. Violations are sentences; the first is usually the cause of the others.
class Observer {
 public:
  Observer(const EngineOptions& options, const TokenDecoder& decoder) : options_(options), decoder_(decoder) {}

  // A new generation will be reported under this id.
  void Expect(const GenerationId& id, const GenerationSpec& spec) { expected_[id] = spec; }

  // Before a step: what is about to run.
  void OnBatch(const Batch& batch);

  // A boundary's report, or a step's (then OnBatch() was called before).
  void OnReport(const Report& report, bool is_step);

  const std::vector<std::string>& violations() const { return violations_; }
  const std::map<GenerationKey, ObservedGeneration>& generations() const { return generations_; }

  // Live ones.
  int64_t live_count() const;

  // Of everything that was reported, in order: equal for equal runs.
  uint64_t trace_hash() const { return trace_hash_; }

 private:
  void On(const StateChanged& event);
  void On(const TokenSampled& event);
  void On(const TextReleased& event);
  void On(const Progress& event);
  void On(const PriorityChanged& event);

  void CheckReply(const Reply& reply);
  void CheckFinish(const ObservedGeneration& generation, const GenerationInfo& info);
  void CheckUsage(const ObservedGeneration& generation, const GenerationInfo& info);

  // After a step: nobody was displaced or passed over against the order.
  void CheckOrder();

  // Null, and a violation, if it is unknown.
  ObservedGeneration* Find(GenerationKey key);
  void Violation(const std::string& what);
  void Trace(uint64_t value);

  // The rank by which the engine must order: lower is more urgent.
  int32_t UrgencyOf(const ObservedGeneration& generation) const;

  const EngineOptions options_;
  const TokenDecoder& decoder_;
  std::map<GenerationId, GenerationSpec> expected_;
  std::map<GenerationKey, ObservedGeneration> generations_;
  std::vector<std::string> violations_;
  int64_t step_ = 0;
  int64_t revision_ = 0;
  uint64_t trace_hash_ = 14695981039346656037u;

  // Of the step under way.
  std::set<GenerationKey> batch_;
  std::set<GenerationKey> admitted_;
  std::set<GenerationKey> displaced_;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_SIM_OBSERVER_H_
