#include "engine/core/step_results.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/check.h"

namespace fermata {

void StepResults::Apply(const Batch& batch, absl::Span<Generation* const> generations, const absl::Status& status,
                        const StepOutput& output) {
  FERMATA_CHECK(batch.slices.size() == generations.size());
  // Nothing can be trusted, not even what was only prefilled: a later step would build on it.
  if (!status.ok()) {
    for (Generation* generation : generations) FinishWithError(*generation, status);
    return;
  }
  auto sampled = output.sampled.begin();
  for (size_t i = 0; i < generations.size(); ++i) {
    const BatchSlice& slice = batch.slices[i];
    Generation& generation = *generations[i];
    Progress progress = CountComputed(generation, slice.token_count);
    if (!slice.sample) {
      RecordProgress(generation, progress);
      continue;
    }
    FERMATA_CHECK(sampled != output.sampled.end() && sampled->slice == static_cast<int32_t>(i));
    if (sampled->status.ok()) {
      const FinishReason reason = AppendToken(generation, *sampled);
      progress.output_token_count = 1;
      RecordProgress(generation, progress);
      if (reason != FinishReason::kNone) {
        life_cycle_.End(generation, reason);
      }
    } else {
      RecordProgress(generation, progress);
      FinishWithError(generation, sampled->status);
    }
    ++sampled;
  }
  FERMATA_CHECK(sampled == output.sampled.end());
}

Progress StepResults::CountComputed(Generation& generation, int32_t token_count) {
  const int32_t begin = generation.computed_token_count;
  const int32_t end = begin + token_count;
  const int32_t known = generation.recompute_end;
  const int32_t recomputed = std::max(0, std::min(end, known) - begin);
  const int32_t prefilled = generation.GivenCount(std::max(begin, known), end);
  generation.computed_token_count = end;
  generation.prefilled_token_count += prefilled;
  generation.recomputed_token_count += recomputed;
  state_.counters.prefilled_token_total += prefilled;
  state_.counters.recomputed_token_total += recomputed;
  if (state_.options.prefix_sharing != PrefixSharing::kOff) ShareBlocks(generation);
  return {.prefilled_token_count = prefilled, .recomputed_token_count = recomputed};
}

void StepResults::ShareBlocks(Generation& generation) {
  const size_t block_tokens = state_.options.block_tokens;
  const absl::Span<const TokenId> computed =
      absl::MakeConstSpan(generation.context).subspan(0, generation.computed_token_count);
  while (generation.shares_more && (generation.kv.shared.size() + 1) * block_tokens <= computed.size()) {
    const size_t n = generation.kv.shared.size();
    const std::optional<PrefixCache::NodeId> parent =
        n == 0 ? std::nullopt : std::optional<PrefixCache::NodeId>(generation.kv.shared.back());
    const std::optional<PrefixCache::NodeId> node =
        state_.cache.Insert(parent, state_.SaltOf(generation.spec), computed.subspan(n * block_tokens, block_tokens),
                            generation.kv.blocks[n]);
    // Another one was quicker: what would follow has no parent of its own.
    generation.shares_more = node.has_value();
    if (!node.has_value()) break;
    state_.cache.Hold(*node, KvUse::kRunning);
    generation.kv.shared.push_back(*node);
    --state_.counters.device.running_count;
  }
}

FinishReason StepResults::AppendToken(Generation& generation, const SampledToken& sampled) {
  const TokenId token = sampled.token;
  FERMATA_CHECK(Value(token) >= 0 && Value(token) < state_.decoder.vocabulary_size());
  // Made with the first token, so that whoever waits costs no memory for it.
  if (!generation.text.has_value()) generation.text.emplace(generation.spec.sampling.stop);
  TokenSampled event{generation.key, generation.output_token_count, token, /*text=*/"", std::nullopt};
  if (generation.spec.sampling.logprobs >= 0) event.logprobs = sampled.logprobs;
  generation.context.push_back(token);
  ++generation.output_token_count;
  ++state_.counters.output_token_total;

  // A stop token's own bytes are not text, and so cannot complete a stop string either.
  const bool stop_string_found = !IsStopToken(generation, state_.decoder, token) &&
                                 generation.text->Append(state_.decoder.Bytes(token), &event.text);
  const FinishReason reason = ReasonToFinish(generation, token, stop_string_found);
  // What is held back belongs to the last token. After a stop string nothing is.
  if (reason != FinishReason::kNone) generation.text->Flush(&event.text);
  state_.journal.Record(generation, std::move(event));
  return reason;
}

FinishReason StepResults::ReasonToFinish(const Generation& generation, TokenId token, bool stop_string_found) const {
  if (stop_string_found || IsStopToken(generation, state_.decoder, token)) return FinishReason::kStop;
  if (generation.output_token_count >= generation.spec.sampling.max_tokens) return FinishReason::kLength;
  return FinishReason::kNone;
}

void StepResults::RecordProgress(Generation& generation, Progress progress) {
  // Told with the first step that follows from it.
  progress.cached_token_count =
      generation.cached_token_count - std::exchange(generation.told_cached_count, generation.cached_token_count);
  progress.kv_blocks = generation.kv_block_counts();
  state_.journal.Record(generation, progress);
}

void StepResults::FinishWithError(Generation& generation, const absl::Status& status) {
  life_cycle_.Finish(generation, FinishReason::kError, Cause::kError,
                     absl::StrCat("step ", state_.journal.step(), " failed: ", status.ToString()));
}

}  // namespace fermata
