#include "engine/model/token_selection.h"

#include <algorithm>

#include "engine/model/random_stream.h"

namespace fermata {
namespace {

using kernels::Backend;

// Those of one kind, in order of their tokens, each token once.
std::vector<Backend::LogitChange> Biases(const SamplingParams& params) {
  std::vector<Backend::LogitChange> changes;
  for (const auto& [token, bias] : params.logit_bias) changes.push_back({.token = Value(token), .bias = bias});
  std::sort(changes.begin(), changes.end(), [](const auto& a, const auto& b) { return a.token < b.token; });
  return changes;
}

void AddRepetitions(const SamplingParams& params, const SamplingContext& context,
                    std::vector<Backend::LogitChange>& changes) {
  if (params.repetition_penalty == 1.0f) return;
  std::vector<int32_t> seen;
  for (const TokenId token : context.tokens) seen.push_back(Value(token));
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  for (const int32_t token : seen) changes.push_back({.token = token, .repetition = params.repetition_penalty});
}

void AddPenalties(const SamplingParams& params, const SamplingContext& context,
                  std::vector<Backend::LogitChange>& changes) {
  if (params.frequency_penalty == 0.0f && params.presence_penalty == 0.0f) return;
  std::vector<int32_t> output;
  SortOutput(context, &output);
  for (auto it = output.begin(); it != output.end();) {
    const auto end = std::upper_bound(it, output.end(), *it);
    const float penalty = params.presence_penalty + params.frequency_penalty * static_cast<float>(end - it);
    changes.push_back({.token = *it, .penalty = penalty});
    it = end;
  }
}

// Those of one token become one.
void Unite(std::vector<Backend::LogitChange>& changes) {
  std::sort(changes.begin(), changes.end(), [](const auto& a, const auto& b) { return a.token < b.token; });
  size_t count = 0;
  for (const Backend::LogitChange& change : changes) {
    if (count == 0 || changes[count - 1].token != change.token) {
      changes[count++] = change;
      continue;
    }
    // At most one of each kind: the others have what changes nothing.
    Backend::LogitChange& last = changes[count - 1];
    last.bias += change.bias;
    last.repetition *= change.repetition;
    last.penalty += change.penalty;
  }
  changes.resize(count);
}

}  // namespace

bool AppendSelection(const SamplingParams& params, const SamplingContext& context, int32_t max_changes,
                     std::vector<Backend::Selection>* selections, std::vector<Backend::LogitChange>* changes) {
  std::vector<Backend::LogitChange> own = Biases(params);
  const auto same_token = [](const auto& a, const auto& b) { return a.token == b.token; };
  if (std::adjacent_find(own.begin(), own.end(), same_token) != own.end()) return false;
  AddRepetitions(params, context, own);
  AddPenalties(params, context, own);
  Unite(own);
  if (changes->size() + own.size() > static_cast<size_t>(max_changes)) return false;
  Backend::Selection selection;
  if (params.temperature > 0.0f && params.top_k != 1) {
    selection.draw = {UniformAt(params.seed, context.tokens.size()), params.temperature};
    selection.top_k = params.top_k;
    selection.top_p = params.top_p;
    selection.min_p = params.min_p;
  }
  selection.logprobs = params.logprobs;
  selection.first_change = static_cast<int32_t>(changes->size());
  selection.change_count = static_cast<int32_t>(own.size());
  selections->push_back(selection);
  changes->insert(changes->end(), own.begin(), own.end());
  return true;
}

}  // namespace fermata
