#include "engine/core/unpark.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

absl::Status Bad(const ParkedGeneration& parked, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("parked generation \"", parked.id.value(), "\": ", what));
}

bool RangesAreGood(const ParkedGeneration& parked) {
  int64_t last = parked.usage.prompt_token_count;
  int64_t appended = 0;
  for (const TokenRange& range : parked.appended) {
    if (range.begin < last || range.end <= range.begin) return false;
    appended += range.end - range.begin;
    last = range.end;
  }
  return last <= static_cast<int64_t>(parked.context.size()) && appended == parked.usage.appended_token_count;
}

// How far it had been computed when its KV was dropped, as far as that was counted: up to the first given token that
// was not, and without the sampled one before it, whose KV is always missing. 0: it was not dropped.
int32_t RecomputeEnd(const Generation& generation, const Usage& usage) {
  int64_t counted = usage.cached_token_count + usage.prefilled_token_count;
  if (counted <= generation.GivenCount(0, generation.computed_token_count)) {
    return usage.recomputed_token_count > 0 ? generation.computed_token_count : 0;
  }
  const int32_t size = static_cast<int32_t>(generation.context.size());
  int32_t end = 0;
  bool given = false;
  for (; end < size; ++end) {
    const bool next_is_given = generation.GivenCount(end, end + 1) > 0;
    if (next_is_given && counted-- <= 0) break;
    given = next_is_given;
  }
  return given || end == 0 ? std::min(end, size - 1) : end - 1;
}

}  // namespace

absl::Status CheckParked(const ParkedGeneration& parked, int64_t block_count, int32_t block_tokens,
                         int32_t context_tokens, int32_t vocabulary_size) {
  const Usage& usage = parked.usage;
  const int64_t tokens = static_cast<int64_t>(parked.context.size());
  const int64_t computed = parked.computed_token_count;
  if (parked.id.value().empty()) return Bad(parked, "it has no id");
  // One by one first: nothing bounds what a file says, and the sum of two may be none.
  const auto are_no_more = [tokens](std::initializer_list<int64_t> counts) {
    return absl::c_all_of(counts, [tokens](int64_t count) { return count >= 0 && count <= tokens; });
  };
  if (!are_no_more({usage.prompt_token_count, usage.appended_token_count, usage.output_token_count}) ||
      usage.prompt_token_count < 1 ||
      usage.prompt_token_count + usage.appended_token_count + usage.output_token_count != tokens) {
    return Bad(parked, "its counts of tokens contradict its tokens");
  }
  if (!RangesAreGood(parked)) return Bad(parked, "its appended tokens are nowhere in its context");
  if (absl::c_any_of(parked.context, [&](TokenId t) { return Value(t) < 0 || Value(t) >= vocabulary_size; })) {
    return Bad(parked, "it has tokens that the model does not");
  }
  const absl::Status sampling = parked.spec.sampling.Validate(vocabulary_size);
  if (!sampling.ok()) return Bad(parked, sampling.message());
  const int64_t limit = usage.prompt_token_count + usage.appended_token_count + parked.spec.sampling.max_tokens;
  if (limit > context_tokens) {
    return Bad(parked, absl::StrCat("it may have ", limit, " tokens; --context_tokens allows ", context_tokens));
  }
  const bool ended = parked.held_finish != FinishReason::kNone;
  if (usage.output_token_count > parked.spec.sampling.max_tokens ||
      (usage.output_token_count == parked.spec.sampling.max_tokens && !ended)) {
    return Bad(parked, "it has more output than max_tokens");
  }
  const int64_t prefill_end = parked.appended.empty() ? usage.prompt_token_count : parked.appended.back().end;
  const bool decodes = computed >= prefill_end;
  if (computed < 0 || computed >= tokens || (decodes && computed != tokens - 1)) {
    return Bad(parked, absl::StrCat("KV of ", computed, " of its ", tokens, " tokens"));
  }
  if ((computed + block_tokens - 1) / block_tokens != block_count) {
    return Bad(parked, absl::StrCat(block_count, " blocks for ", computed, " tokens"));
  }
  if (!are_no_more({usage.cached_token_count, usage.prefilled_token_count}) ||
      usage.cached_token_count + usage.prefilled_token_count > usage.prompt_token_count + usage.appended_token_count) {
    return Bad(parked, "more cached and prefilled than it was given");
  }
  // They go on counting from there.
  for (const auto& [count, what] : {std::pair(usage.recomputed_token_count, " tokens computed again"),
                                    {usage.preemption_count, " times displaced"},
                                    {usage.pause_count, " times paused"}}) {
    if (count < 0 || count > std::numeric_limits<int32_t>::max()) return Bad(parked, absl::StrCat(count, what));
  }
  int32_t last = 0;
  for (const int32_t begin : parked.text_begins) {
    if (begin < last || begin > usage.output_token_count) return Bad(parked, "its texts begin nowhere");
    last = begin;
  }
  return absl::OkStatus();
}

void Unpark(ParkedGeneration parked, Generation* generation) {
  const Usage& usage = parked.usage;
  generation->body_digest = std::move(parked.body_digest);
  generation->spec = std::move(parked.spec);
  generation->create_time = parked.create_time;
  generation->context = std::move(parked.context);
  generation->appended = std::move(parked.appended);
  generation->append_id = std::move(parked.append_id);
  generation->text_begins = std::move(parked.text_begins);
  generation->prompt_token_count = static_cast<int32_t>(usage.prompt_token_count);
  generation->appended_token_count = static_cast<int32_t>(usage.appended_token_count);
  generation->output_token_count = static_cast<int32_t>(usage.output_token_count);
  generation->cached_token_count = static_cast<int32_t>(usage.cached_token_count);
  generation->computed_token_count = parked.computed_token_count;
  generation->held_finish = parked.held_finish;
  generation->recompute_end = RecomputeEnd(*generation, usage);
  const int32_t given =
      generation->GivenCount(0, std::max(generation->computed_token_count, generation->recompute_end));
  generation->cached_token_count = std::min(generation->cached_token_count, given);
  generation->told_cached_count = generation->cached_token_count;
  generation->prefilled_token_count = given - generation->cached_token_count;
  generation->recomputed_token_count = static_cast<int32_t>(usage.recomputed_token_count);
  generation->life.Adopt(usage, parked.start_time);
}

void TellAgain(Generation& generation, const TokenDecoder& decoder, Journal& journal) {
  int64_t offset = 0;
  const int32_t total = generation.output_token_count;
  const auto ends_text = [&](int64_t count) {
    return absl::c_linear_search(generation.text_begins, static_cast<int32_t>(count));
  };
  for (int32_t position = generation.prompt_token_count; offset < total; ++position) {
    if (generation.GivenCount(position, position + 1) > 0) continue;
    const TokenId token = generation.context[position];
    if (!generation.text.has_value()) generation.text.emplace(generation.spec.sampling.stop);
    TokenSampled event{generation.key, offset++, token, /*text=*/"", std::nullopt};
    if (!IsStopToken(generation, decoder, token)) generation.text->Append(decoder.Bytes(token), &event.text);
    const bool last = ends_text(offset);
    if (last) generation.text->Flush(&event.text);
    journal.Record(generation, std::move(event));
    if (last) generation.text.reset();
  }
}

}  // namespace fermata
