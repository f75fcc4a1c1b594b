#include "tests/sim/observer.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "tests/fakes/fake_model.h"
#include "tests/sim/joint_order_checker.h"
#include "tests/sim/order_checker.h"

namespace fermata {

using State = GenerationState;

int64_t Observer::live_count() const {
  return absl::c_count_if(generations_, [](const auto& entry) { return IsLive(entry.second.state); });
}

ObservedGeneration* Observer::FindLive(GenerationKey key) {
  const auto it = generations_.find(key);
  if (it != generations_.end() && IsLive(it->second.state)) return &it->second;
  violations_.Add(key, it == generations_.end() ? "is reported, but unknown" : "is reported after its finish");
  return nullptr;
}

void Observer::OnBatch(const Batch& batch) {
  shares_.clear();
  samples_.clear();
  if (batch.step != step_ + 1) violations_.Add(absl::StrCat("a batch of step ", batch.step));
  for (const BatchSlice& slice : batch.slices) CheckSlice(slice);
}

void Observer::CheckSlice(const BatchSlice& slice) {
  const ObservedGeneration* generation = FindLive(slice.key);
  if (generation == nullptr) return;
  if (!shares_.emplace(slice.key, slice.token_count).second) violations_.Add(slice.key, "is twice in a batch");
  if (slice.sample) samples_.insert(slice.key);
  NoteCached(slice);
  if (slice.first_position != generation->computed_token_count) {
    violations_.Add(slice.key, absl::StrCat("computes from position ", slice.first_position, "; due is ",
                                            generation->computed_token_count));
  }
  if (slice.sample != (slice.token_count == generation->pending_token_count())) {
    violations_.Add(slice.key, "samples where it should not, or does not where it should");
  }
  if (!std::equal(slice.context.begin(), slice.context.end(), generation->context.begin(), generation->context.end())) {
    violations_.Add(slice.key, "has a context that is not its prompt, its output and what was appended");
  }
}

void Observer::NoteCached(const BatchSlice& slice) {
  ObservedGeneration& generation = generations_.at(slice.key);
  const int64_t given = static_cast<int64_t>(generation.context.size());
  // In whole blocks, before anything is computed, and never all there is.
  const bool may_be_cached = options_.prefix_sharing != PrefixSharing::kOff && generation.computed_token_count == 0 &&
                             slice.first_position % options_.block_tokens == 0 && slice.first_position < given;
  if (!may_be_cached) return;
  // What had been computed before it was dropped has been counted.
  generation.cached_token_count += std::max<int64_t>(
      0, generation.GivenCount(slice.first_position) - generation.GivenCount(generation.recompute_end));
  generation.computed_token_count = slice.first_position;
}

void Observer::OnBoundary(absl::Time now, const Report& report) {
  if (report.step != step_) violations_.Add(absl::StrCat("a boundary of step ", report.step, " after ", step_));
  OnReport(now, report);
}

void Observer::CheckGivingWay(const Report& boundary) {
  for (const KvMove& move : boundary.moves) moving_.insert(move.generation_id);
  JointOrderChecker(options_, generations_, moving_, violations_).CheckBoundary({boundary, generations_});
}

void Observer::OnStep(absl::Time now, const Report& report) {
  if (report.step != step_ + 1) violations_.Add(absl::StrCat("step ", report.step, " follows ", step_));
  std::set<GenerationKey> displaced;
  for (const Event& event : report.events) {
    const auto* change = std::get_if<StateChanged>(&event);
    if (change != nullptr && change->to == State::kPreempted) displaced.insert(change->key);
  }
  JointOrderChecker(options_, generations_, moving_, violations_).CheckStep(shares_, displaced);
  // Caps, aging, shared blocks and tiers make an order of their own: the above is all that is certain then.
  if (options_.classes.empty() && options_.aging == absl::InfiniteDuration() &&
      options_.prefix_sharing == PrefixSharing::kOff && options_.host_block_count + options_.disk_block_count == 0) {
    GrowRunning();
    OrderChecker(options_, generations_, shares_, displaced, violations_).Check();
  }
  progress_.clear();
  sampled_.clear();
  for (const auto& [key, token_count] : shares_) {
    const auto it = generations_.find(key);
    if (it != generations_.end()) it->second.computed_token_count += token_count;
  }
  in_step_ = true;
  OnReport(now, report);
  in_step_ = false;
  has_dropped_ = false;
  CheckProgress();
}

void Observer::GrowRunning() {
  int64_t free = options_.block_count;
  std::map<Place, ObservedGeneration*> running;
  for (auto& [key, generation] : generations_) {
    free -= generation.block_count;
    if (generation.state == State::kRunning) running.emplace(generation.PlaceIn(options_), &generation);
  }
  for (const auto& [place, generation] : running) {
    const int64_t lacks = generation->BlockCountToRun(options_.block_tokens) - generation->block_count;
    // What was dropped since may have been given to one that waited.
    generation->stalled = lacks > free || (lacks > 0 && has_dropped_ && shares_.count(generation->key) == 0);
    generation->may_hold_more = lacks > 0 && lacks <= free && generation->stalled;
    totals_.stalls += generation->stalled;
    if (lacks <= 0 || generation->stalled) continue;
    generation->block_count += lacks;
    free -= lacks;
  }
}

void Observer::OnReport(absl::Time now, const Report& report) {
  now_ = now;
  step_ = report.step;
  violations_.set_step(step_);
  const int64_t rise = report.events.empty() ? 0 : 1;
  if (revision_ != 0 && report.revision != revision_ + rise) {
    violations_.Add(absl::StrCat("revision ", report.revision, " follows ", revision_));
  }
  if (revision_ == 0 && rise == 1 && report.revision < options_.first_revision) violations_.Add("an old revision");
  if (revision_ != 0 || rise == 1) revision_ = report.revision;
  for (const Event& event : report.events) {
    std::visit([this](const auto& typed) { On(typed); }, event);
  }
  for (const GenerationKey key : report.forgotten) {
    if (generations_.count(key) == 0 || IsLive(generations_.at(key).state)) violations_.Add(key, "is forgotten alive");
    generations_.erase(key);
  }
}

void Observer::Begin(const StateChanged& event) {
  const auto spec = event.info != nullptr ? expected_.find(event.info->id) : expected_.end();
  if (spec == expected_.end()) return violations_.Add(event.key, "begins, but nobody asked for it");
  ObservedGeneration& generation = generations_[event.key];
  if (generation.state != State::kNone) violations_.Add(event.key, "begins twice");
  ++totals_.generations;
  generation.key = event.key;
  generation.id = event.info->id;
  generation.spec = spec->second;
  generation.create_time = now_;
  generation.Give(generation.spec.prompt);
  generation.max_tokens = generation.spec.sampling.max_tokens;
}

void Observer::OnTurn(GenerationKey key, const FakeTurn& turn) {
  const auto it = generations_.find(key);
  // It may have ended at the same boundary.
  if (it == generations_.end() || !IsLive(it->second.state)) return;
  it->second.Give(turn.appended);
  it->second.max_tokens = turn.max_tokens;
  it->second.turns.push_back(turn);
}

void Observer::On(const StateChanged& event) {
  if (event.from == State::kNone) Begin(event);
  const auto it = generations_.find(event.key);
  if (it == generations_.end()) return violations_.Add(event.key, "is reported, but unknown");
  ObservedGeneration& generation = it->second;
  if (event.from != generation.state || !IsLegalTransition(event.from, event.to)) {
    violations_.Add(event.key, absl::StrCat("goes from ", Name(event.from), " to ", Name(event.to), "; it was ",
                                            Name(generation.state)));
  }
  CheckCause(event);
  generation.state = event.to;
  generation.stalled = false;
  if (event.info != nullptr && event.to == State::kPaused && generation.tier == KvTier::kDevice) {
    const int64_t told = event.info->kv_blocks.total();
    if (told == generation.block_count + 1 && told <= generation.BlockCountNeeded(options_.block_tokens)) {
      generation.block_count = told;
    }
  }
  if (event.to == State::kRunning) {
    moving_.erase(generation.id);
    if (generation.tier == KvTier::kHost || generation.tier == KvTier::kDisk) {
      violations_.Add(event.key, absl::StrCat("runs, and its KV is on ", Name(generation.tier)));
    }
    generation.tier = KvTier::kDevice;
    generation.block_count = std::max(generation.block_count, generation.BlockCountNeeded(options_.block_tokens));
  }
  if (event.to == State::kPaused) {
    ++generation.pause_count;
    ++totals_.pauses;
    generation.pause_step = step_;
  }
  if (event.from == State::kRunning && event.to == State::kPreempted) {
    ++generation.preemption_count;
    ++totals_.displacements;
  }
  if (event.to == State::kFinished) {
    generation.block_count = 0;
    generation.tier = KvTier::kNone;
    generation.kept_count = 0;
    generation.finish_time = now_;
  }
  const bool needs_info = event.from == State::kNone || event.to == State::kPaused || event.to == State::kFinished;
  if ((event.info != nullptr) != needs_info) violations_.Add(event.key, "changes with a copy too many or too few");
  if (event.info != nullptr) CheckInfo(generation, *event.info);
  if (event.to == State::kFinished && event.info != nullptr) CheckFinish(generation, *event.info);
}

void Observer::CheckCause(const StateChanged& event) {
  const bool by_step = event.cause == Cause::kScheduler || event.cause == Cause::kStop ||
                       event.cause == Cause::kLength || event.cause == Cause::kError;
  // At a boundary, one may give way to end a standstill.
  const auto it = generations_.find(event.key);
  const bool is_lost = it != generations_.end() && it->second.is_lost;
  // Displaced for its blocks, before the step; or ended for them, where they must not be dropped.
  const bool is_displaced = event.from == State::kRunning && event.to == State::kPreempted;
  const bool runs_out = !options_.allow_recompute && (event.from == State::kPreempted || event.from == State::kRunning);
  const bool gives_way = !in_step_ && (event.cause == Cause::kError ? is_lost || runs_out
                                                                    : is_displaced && event.cause == Cause::kScheduler);
  if (gives_way && event.cause == Cause::kError && !is_lost) ++totals_.out_of_blocks;
  if (by_step != in_step_ && !gives_way)
    violations_.Add(event.key, absl::StrCat("changes at a wrong time, by ", Name(event.cause)));
  // Nothing but a batch makes it run.
  const bool in_batch = shares_.count(event.key) > 0;
  if (event.to == State::kRunning && !in_batch) violations_.Add(event.key, "is admitted without a token");
  if (in_step_ && event.to == State::kPreempted && in_batch) violations_.Add(event.key, "is displaced and runs");
}

void Observer::On(const TokenSampled& event) {
  ObservedGeneration* generation = FindLive(event.key);
  if (generation == nullptr) return;
  if (generation->state != State::kRunning) {
    violations_.Add(event.key, absl::StrCat("gets a token while ", Name(generation->state)));
  }
  if (!in_step_ || samples_.count(event.key) == 0) violations_.Add(event.key, "gets a token that was not sampled");
  if (!sampled_.insert(event.key).second) violations_.Add(event.key, "gets two tokens in a step");
  if (event.offset != static_cast<int64_t>(generation->tokens.size())) {
    violations_.Add(event.key, absl::StrCat("gets offset ", event.offset, " after ", generation->tokens.size()));
  }
  if (step_ <= generation->pause_step) violations_.Add(event.key, "gets a token of a step before its pause");
  const int32_t logprobs = generation->spec.sampling.logprobs;
  if (event.logprobs.has_value() != (logprobs >= 0) ||
      (logprobs >= 0 && event.logprobs->top.size() != static_cast<size_t>(logprobs))) {
    violations_.Add(event.key, "gets other logprobs than it asked for");
  }
  generation->tokens.push_back(event.token);
  generation->context.push_back(event.token);
  generation->is_given.push_back(false);
  generation->text += event.text;
  ++totals_.tokens;
}

void Observer::On(const TextReleased& event) {
  ObservedGeneration* generation = FindLive(event.key);
  if (generation == nullptr) return;
  if (event.text.empty()) violations_.Add(event.key, "releases no text");
  generation->text += event.text;
}

void Observer::On(const Progress& event) {
  ObservedGeneration* generation = FindLive(event.key);
  if (generation == nullptr) return;
  if (!in_step_) return OnTrimmed(event, *generation);
  if (shares_.count(event.key) == 0) violations_.Add(event.key, "progresses without being run");
  if (!progress_.emplace(event.key, event.prefilled_token_count).second) violations_.Add(event.key, "progresses twice");
  const int64_t begin = generation->computed_token_count - shares_[event.key];
  const int64_t again =
      std::max<int64_t>(0, std::min(generation->computed_token_count, generation->recompute_end) - begin);
  if (event.recomputed_token_count != again) {
    violations_.Add(event.key, absl::StrCat("computes ", event.recomputed_token_count, " tokens again, not ", again));
  }
  generation->recomputed_token_count += again;
  generation->told_cached_count += event.cached_token_count;
  if (generation->told_cached_count != generation->cached_token_count) {
    violations_.Add(event.key, "tells of more or less cached tokens than there were");
  }
  generation->block_count = event.kv_blocks.total();
  generation->may_hold_more = false;
  if (generation->block_count <
      (generation->computed_token_count + options_.block_tokens - 1) / options_.block_tokens) {
    violations_.Add(event.key, "holds fewer blocks than it has KV in");
  }
  if (event.output_token_count != static_cast<int32_t>(sampled_.count(event.key))) {
    violations_.Add(event.key, absl::StrCat("progresses by ", event.output_token_count, " output tokens"));
  }
  generation->prefilled_token_count += event.prefilled_token_count;
  const int64_t ever = std::max(generation->computed_token_count, generation->recompute_end);
  const int64_t expected = generation->GivenCount(ever) - generation->cached_token_count;
  if (generation->prefilled_token_count != expected) {
    violations_.Add(event.key, absl::StrCat("has prefilled ", generation->prefilled_token_count, " tokens; ", expected,
                                            " of those computed are prompt or appended"));
  }
}

void Observer::On(const PriorityChanged& event) {
  ObservedGeneration* generation = FindLive(event.key);
  if (generation != nullptr) generation->spec.priority = event.priority;
}

void Observer::CheckInfo(const ObservedGeneration& generation, const GenerationInfo& info) {
  const Usage& usage = info.usage;
  const auto check = [&](int64_t reported, int64_t seen, absl::string_view what) {
    if (reported != seen) violations_.Add(generation.key, absl::StrCat(what, " is ", reported, ", seen is ", seen));
  };
  check(Value(info.key), Value(generation.key), "key");
  check(static_cast<int64_t>(info.state), static_cast<int64_t>(generation.state), "state");
  check(usage.prompt_token_count, static_cast<int64_t>(generation.spec.prompt.size()), "prompt_token_count");
  check(usage.output_token_count, static_cast<int64_t>(generation.tokens.size()), "output_token_count");
  check(usage.recomputed_token_count, generation.recomputed_token_count, "recomputed_token_count");
  check(usage.cached_token_count, generation.cached_token_count, "cached_token_count");
  check(usage.pause_count, generation.pause_count, "pause_count");
  check(usage.preemption_count, generation.preemption_count, "preemption_count");
  // One that runs may have got a block since it was last told.
  const bool has_grown = generation.tier == KvTier::kDevice && info.kv_blocks.total() == generation.block_count + 1 &&
                         info.kv_blocks.total() <= generation.BlockCountNeeded(options_.block_tokens);
  if (!has_grown) check(info.kv_blocks.total(), generation.block_count, "kv_block_count");
  check(static_cast<int64_t>(info.kv_tier), static_cast<int64_t>(generation.tier), "kv_tier");
  check(usage.prefilled_token_count, generation.prefilled_token_count, "prefilled_token_count");
  check(info.step, step_, "step");
  check(info.revision, revision_, "revision");
}

void Observer::CheckFinish(const ObservedGeneration& generation, const GenerationInfo& info) {
  const bool needs_message = info.finish_reason == FinishReason::kError ||
                             info.finish_reason == FinishReason::kDeadline ||
                             info.finish_reason == FinishReason::kAborted;
  if (needs_message == info.error_message.empty()) violations_.Add(info.key, "finishes with a wrong message");
  CheckOutput(generation, info.finish_reason);
}

void Observer::CheckOutput(const ObservedGeneration& generation, FinishReason reason) {
  const bool by_itself = reason == FinishReason::kStop || reason == FinishReason::kLength;
  const int64_t count = static_cast<int64_t>(generation.tokens.size());
  const FakeOutput expected = by_itself ? ExpectedOutput(generation.spec, decoder_, generation.turns)
                                        : ExpectedOutput(generation.spec, decoder_, generation.turns, count);
  if (generation.tokens != expected.tokens) violations_.Add(generation.key, "has other tokens than undisturbed");
  if (generation.text != expected.text) violations_.Add(generation.key, "has other text than undisturbed");
  if (by_itself) {
    ++totals_.finished;
    if (reason != expected.reason) violations_.Add(generation.key, "finishes for another reason than undisturbed");
  } else if (expected.reason != FinishReason::kNone && !generation.spec.hold_on_stop) {
    violations_.Add(generation.key, "has all of its tokens, and is cut short");
  }
}

void Observer::CheckProgress() {
  for (const auto& [key, token_count] : shares_) {
    const auto it = generations_.find(key);
    // A step or a row that failed has no results; its generations have ended.
    if (it == generations_.end() || !IsLive(it->second.state)) continue;
    const bool is_held = it->second.state == State::kPaused && it->second.spec.hold_on_stop;
    if (it->second.state != State::kRunning && !is_held) violations_.Add(key, "was run and is not RUNNING");
    if (progress_.count(key) == 0) violations_.Add(key, "was run and does not say what it did");
    if (samples_.count(key) != sampled_.count(key)) violations_.Add(key, "was sampled and gets no token");
  }
}

}  // namespace fermata
