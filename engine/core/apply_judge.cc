#include "engine/core/apply_judge.h"

#include <utility>
#include <variant>

#include "engine/core/generation.h"

namespace fermata {

std::vector<GenerationId> Select(const EngineState& state, const Selector& selector) {
  std::vector<GenerationId> ids;
  for (const auto& [key, generation] : state.table.all()) {
    if (Matches(selector, StandingOf(state, *generation))) ids.push_back(generation->id);
  }
  return ids;
}

std::vector<OperationResult> ApplyJudge::JudgeAll(const std::vector<Operation>& operations) {
  std::vector<OperationResult> results;
  for (const Operation& operation : operations) {
    std::visit([&](const auto& verb) { JudgeOne(verb, results); }, operation);
  }
  return results;
}

template <typename Verb>
void ApplyJudge::JudgeOne(const Verb& verb, std::vector<OperationResult>& results) {
  const std::vector<GenerationId> selected =
      verb.selector.has_value() ? SelectNow(*verb.selector) : std::vector<GenerationId>();
  for (const GenerationId& id : verb.selector.has_value() ? selected : verb.ids) {
    const Standing before = Find(id);
    Standing after = before;
    absl::Status status = Judge(verb, state_, id, after);
    if (status.ok()) Set(id, before, after);
    results.push_back({.id = id, .status = std::move(status)});
  }
}

void ApplyJudge::JudgeOne(const EnqueueCommand& command, std::vector<OperationResult>& results) {
  const Standing before = Find(command.id);
  Standing after = before;
  absl::Status status = Judge(command, state_, occupancy_, after);
  if (status.ok()) Set(command.id, before, after);
  results.push_back({.id = command.id, .status = std::move(status)});
}

Standing ApplyJudge::Find(const GenerationId& id) const {
  const auto it = changed_.find(id);
  if (it != changed_.end()) return it->second;
  const Generation* generation = state_.table.Find(id);
  return generation == nullptr ? Standing() : StandingOf(state_, *generation);
}

void ApplyJudge::Set(const GenerationId& id, const Standing& before, const Standing& after) {
  if (before.state == GenerationState::kNone) created_.push_back(id);
  occupancy_.live_count += IsLive(after.state) - IsLive(before.state);
  occupancy_.queued_by_class[after.class_index] +=
      (after.state == GenerationState::kQueued) - (before.state == GenerationState::kQueued);
  changed_[id] = after;
}

std::vector<GenerationId> ApplyJudge::SelectNow(const Selector& selector) const {
  std::vector<GenerationId> ids;
  for (const auto& [key, generation] : state_.table.all()) {
    if (Matches(selector, Find(generation->id))) ids.push_back(generation->id);
  }
  for (const GenerationId& id : created_) {
    if (Matches(selector, Find(id))) ids.push_back(id);
  }
  return ids;
}

}  // namespace fermata
