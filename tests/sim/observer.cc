#include "tests/sim/observer.h"

#include <algorithm>
#include <limits>
#include <variant>

#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

std::string Shown(GenerationKey key) { return absl::StrCat("generation ", Value(key)); }

}  // namespace

void Observer::Violation(const std::string& what) { violations_.push_back(absl::StrCat("step ", step_, ": ", what)); }

void Observer::Trace(uint64_t value) { trace_hash_ = (trace_hash_ ^ value) * 1099511628211u; }

int32_t Observer::UrgencyOf(const ObservedGeneration& generation) const {
  return options_.policy == SchedulePolicy::kPriority ? generation.spec.priority : 0;
}

ObservedGeneration* Observer::Find(GenerationKey key) {
  const auto it = generations_.find(key);
  if (it != generations_.end()) return &it->second;
  Violation(absl::StrCat(Shown(key), " is reported but was never begun"));
  return nullptr;
}

int64_t Observer::live_count() const {
  return std::count_if(generations_.begin(), generations_.end(),
                       [](const auto& entry) { return IsLive(entry.second.state); });
}

void Observer::OnBatch(const Batch& batch) {
  batch_.clear();
  int64_t tokens = 0;
  for (const BatchSlice& slice : batch.slices) {
    batch_.insert(slice.key);
    tokens += slice.token_count;
  }
  if (batch.step != step_ + 1) Violation(absl::StrCat("a batch of step ", batch.step));
  if (tokens > options_.step_tokens) Violation(absl::StrCat(tokens, " tokens in a step"));
  if (static_cast<int64_t>(batch.slices.size()) > options_.max_running) {
    Violation(absl::StrCat(batch.slices.size(), " generations in a step"));
  }
}

void Observer::OnReport(const Report& report, bool is_step) {
  admitted_.clear();
  displaced_.clear();
  if (report.step != step_ + (is_step ? 1 : 0)) Violation(absl::StrCat("a report of step ", report.step));
  step_ = report.step;
  if (!report.events.empty()) {
    if (revision_ != 0 && report.revision != revision_ + 1) {
      Violation(absl::StrCat("revision ", report.revision, " follows ", revision_));
    }
    revision_ = report.revision;
  }
  Trace(static_cast<uint64_t>(report.step));
  for (const Event& event : report.events) {
    std::visit([this](const auto& typed) { On(typed); }, event);
  }
  if (is_step) CheckOrder();
  for (const Reply& reply : report.replies) CheckReply(reply);
  const auto running = std::count_if(generations_.begin(), generations_.end(),
                                     [](const auto& entry) { return entry.second.state == GenerationState::kRunning; });
  if (running > options_.max_running) Violation(absl::StrCat(running, " are running"));
}

void Observer::On(const StateChanged& event) {
  Trace(static_cast<uint64_t>(Value(event.key)) * 64 + static_cast<uint64_t>(event.to));
  if (event.from == GenerationState::kNone) {
    if (!event.info.has_value() || !expected_.contains(event.info->id)) {
      Violation(absl::StrCat(Shown(event.key), " begins, but nobody asked for it"));
      return;
    }
    ObservedGeneration& generation = generations_[event.key];
    if (generation.state != GenerationState::kNone) Violation(absl::StrCat(Shown(event.key), " begins twice"));
    generation.id = event.info->id;
    generation.spec = expected_[event.info->id];
    generation.state = event.to;
    if (event.to == GenerationState::kPaused) ++generation.pause_count;
    return;
  }
  ObservedGeneration* generation = Find(event.key);
  if (generation == nullptr) return;
  if (event.from != generation->state || !IsLegalTransition(event.from, event.to)) {
    Violation(absl::StrCat(Shown(event.key), " goes from ", Name(event.from), " to ", Name(event.to), " but was ",
                           Name(generation->state)));
  }
  generation->state = event.to;
  if (event.to == GenerationState::kRunning) admitted_.insert(event.key);
  if (event.to == GenerationState::kPaused) {
    ++generation->pause_count;
    generation->pause_step = step_;
  }
  if (event.from == GenerationState::kRunning && event.to == GenerationState::kPreempted) {
    ++generation->preemption_count;
    displaced_.insert(event.key);
  }
  if (event.to != GenerationState::kFinished) return;
  ++generation->finish_count;
  if (generation->finish_count > 1) Violation(absl::StrCat(Shown(event.key), " finishes twice"));
  if (event.info.has_value()) {
    CheckFinish(*generation, *event.info);
  } else {
    Violation(absl::StrCat(Shown(event.key), " finishes without saying how"));
  }
}

void Observer::On(const TokenSampled& event) {
  Trace(static_cast<uint64_t>(Value(event.token)));
  ObservedGeneration* generation = Find(event.key);
  if (generation == nullptr) return;
  if (generation->state != GenerationState::kRunning) {
    Violation(absl::StrCat(Shown(event.key), " gets a token while ", Name(generation->state)));
  }
  if (event.offset != static_cast<int64_t>(generation->tokens.size())) {
    Violation(absl::StrCat(Shown(event.key), " gets offset ", event.offset, " after ", generation->tokens.size()));
  }
  if (generation->pause_count > 0 && step_ <= generation->pause_step) {
    Violation(absl::StrCat(Shown(event.key), " gets a token of step ", step_, ", paused at ", generation->pause_step));
  }
  if (!batch_.contains(event.key)) Violation(absl::StrCat(Shown(event.key), " gets a token but was in no batch"));
  generation->tokens.push_back(event.token);
  generation->text += event.text;
  generation->last_token_step = step_;
}

void Observer::On(const TextReleased& event) {
  ObservedGeneration* generation = Find(event.key);
  if (generation == nullptr) return;
  if (!IsLive(generation->state)) Violation(absl::StrCat(Shown(event.key), " releases text after its finish"));
  generation->text += event.text;
}

void Observer::On(const Progress& event) {
  ObservedGeneration* generation = Find(event.key);
  if (generation == nullptr) return;
  if (!batch_.contains(event.key)) Violation(absl::StrCat(Shown(event.key), " progresses but was in no batch"));
  if (event.recomputed_token_count != 0) Violation(absl::StrCat(Shown(event.key), " recomputes"));
  generation->prefilled_token_count += event.prefilled_token_count;
  generation->has_kv = true;
}

void Observer::On(const PriorityChanged& event) {
  ObservedGeneration* generation = Find(event.key);
  if (generation != nullptr) generation->spec.priority = event.priority;
}

void Observer::CheckReply(const Reply& reply) {
  if (reply.step > step_) Violation("a reply from the future");
  const auto* results = std::get_if<std::vector<OperationResult>>(&reply.result);
  if (results == nullptr) return;
  for (const OperationResult& result : *results) {
    Trace(static_cast<uint64_t>(result.status.code()));
    if (result.status.ok() != result.generation.has_value()) Violation("a result with both an error and a generation");
    if (!result.generation.has_value()) continue;
    ObservedGeneration* generation = Find(result.generation->key);
    if (generation == nullptr) continue;
    // Commands of a boundary come before any token of the next step: what is acknowledged is what was seen.
    if (result.generation->usage.output_token_count != static_cast<int64_t>(generation->tokens.size())) {
      Violation(absl::StrCat(Shown(result.generation->key), ": ", result.generation->usage.output_token_count,
                             " tokens acknowledged, ", generation->tokens.size(), " seen"));
    }
    if (result.generation->id != result.id) Violation("a result of another generation");
  }
}

void Observer::CheckFinish(const ObservedGeneration& generation, const GenerationInfo& info) {
  CheckUsage(generation, info);
  const std::string name = Shown(info.key);
  const FakeOutput expected = ExpectedOutput(generation.spec, decoder_);
  if (info.finish_reason == FinishReason::kStop || info.finish_reason == FinishReason::kLength) {
    if (generation.tokens != expected.tokens) Violation(absl::StrCat(name, ": other tokens than undisturbed"));
    if (generation.text != expected.text) Violation(absl::StrCat(name, ": other text than undisturbed"));
    if (info.finish_reason != expected.reason) Violation(absl::StrCat(name, ": finishes with another reason"));
    return;
  }
  const bool is_prefix = generation.tokens.size() <= expected.tokens.size() &&
                         std::equal(generation.tokens.begin(), generation.tokens.end(), expected.tokens.begin());
  if (!is_prefix) Violation(absl::StrCat(name, ": its tokens do not begin as undisturbed"));
  if (generation.text != TextOfPrefix(generation.tokens, decoder_)) {
    Violation(absl::StrCat(name, ": its text is not that of its tokens"));
  }
}

void Observer::CheckUsage(const ObservedGeneration& generation, const GenerationInfo& info) {
  const std::string name = Shown(info.key);
  const Usage& usage = info.usage;
  const auto check = [&](int64_t reported, int64_t seen, absl::string_view what) {
    if (reported != seen) Violation(absl::StrCat(name, ": ", what, " is ", reported, ", seen ", seen));
  };
  check(usage.prompt_token_count, static_cast<int64_t>(generation.spec.prompt.size()), "prompt_token_count");
  check(usage.output_token_count, static_cast<int64_t>(generation.tokens.size()), "output_token_count");
  check(usage.prefilled_token_count, generation.prefilled_token_count, "prefilled_token_count");
  check(usage.recomputed_token_count, 0, "recomputed_token_count");
  check(usage.pause_count, generation.pause_count, "pause_count");
  check(usage.preemption_count, generation.preemption_count, "preemption_count");
  if (!generation.tokens.empty())
    check(usage.prefilled_token_count, usage.prompt_token_count, "prefilled after output");
  check(info.kv_block_count, 0, "kv_block_count");
}

void Observer::CheckOrder() {
  if (!displaced_.empty() && options_.displacement == Displacement::kNever) Violation("displaced against the flag");
  int32_t most_urgent_admitted = std::numeric_limits<int32_t>::max();
  int32_t least_urgent_admitted = std::numeric_limits<int32_t>::min();
  for (const GenerationKey key : admitted_) {
    const int32_t urgency = UrgencyOf(generations_[key]);
    most_urgent_admitted = std::min(most_urgent_admitted, urgency);
    least_urgent_admitted = std::max(least_urgent_admitted, urgency);
  }
  int32_t least_urgent_run = std::numeric_limits<int32_t>::min();
  for (const GenerationKey key : batch_) least_urgent_run = std::max(least_urgent_run, UrgencyOf(generations_[key]));
  for (const GenerationKey key : displaced_) {
    if (UrgencyOf(generations_[key]) <= most_urgent_admitted) {
      Violation(absl::StrCat(Shown(key), " is displaced, but nobody admitted is more urgent"));
    }
  }
  if (displaced_.size() > admitted_.size()) Violation("more are displaced than admitted");
  for (const auto& [key, generation] : generations_) {
    // One that has its KV lacks nothing but a slot and tokens; both go by order.
    if (generation.state != GenerationState::kPreempted || displaced_.contains(key)) continue;
    const bool may_displace = options_.displacement == Displacement::kRunning;
    const int32_t passed_by = may_displace ? least_urgent_run : least_urgent_admitted;
    if (UrgencyOf(generation) < passed_by) Violation(absl::StrCat(Shown(key), " waits while a less urgent one runs"));
  }
}

}  // namespace fermata
