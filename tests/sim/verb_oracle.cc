#include "tests/sim/verb_oracle.h"

#include <algorithm>
#include <tuple>
#include <variant>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

using State = GenerationState;

// What the message of an error must name, for clients to act on; empty: nothing in particular.
std::string NameInMessage(absl::StatusCode code) {
  return code == absl::StatusCode::kResourceExhausted ? "--max_" : "";
}

}  // namespace

void VerbOracle::OnBoundary(absl::Time now, const std::vector<Command>& commands, const Report& report) {
  now_ = now;
  report_ = &report;
  next_reply_ = 0;
  events_.clear();
  for (const Command& command : commands) {
    std::visit([this](const auto& typed) { On(typed); }, command);
  }
  if (next_reply_ < report.replies.size()) violations_.Add("more replies than commands that have one");
  FireTimers();
  CheckEvents(report);
  CheckForgotten(report);
}

void VerbOracle::OnStep(absl::Time now, const ObservedGenerations& generations, const Report& report) {
  now_ = now;
  if (!report.replies.empty()) violations_.Add("a step replies to nobody");
  // In the order of the report, for that is the order in which the finished ones age.
  for (const Event& event : report.events) {
    const auto* change = std::get_if<StateChanged>(&event);
    if (change == nullptr) continue;
    const auto it = by_key_.find(change->key);
    if (it == by_key_.end()) continue;
    it->second.state = change->to;
    if (change->to != State::kFinished) continue;
    it->second.finish_time = now;
    finished_.push_back(change->key);
  }
  for (const auto& [key, observed] : generations) {
    const auto it = by_key_.find(key);
    if (it == by_key_.end()) continue;
    it->second.output_token_count = static_cast<int64_t>(observed.tokens.size());
    it->second.has_kv = observed.computed_token_count > 0;
  }
  CheckForgotten(report);
}

std::vector<GenerationKey> VerbOracle::WithReaders() const {
  std::vector<GenerationKey> keys;
  for (const auto& [key, generation] : by_key_) {
    if (generation.reader_count > 0) keys.push_back(key);
  }
  return keys;
}

ExpectedGeneration* VerbOracle::Find(const GenerationId& id) {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &by_key_.at(it->second);
}

int64_t VerbOracle::CountIn(State state) const {
  return absl::c_count_if(by_key_, [state](const auto& entry) { return entry.second.state == state; });
}

const Reply* VerbOracle::NextReply(Ticket ticket) {
  if (next_reply_ >= report_->replies.size()) {
    violations_.Add(absl::StrCat("ticket ", static_cast<int64_t>(ticket), " gets no reply"));
    return nullptr;
  }
  const Reply& reply = report_->replies[next_reply_++];
  if (reply.ticket != ticket) violations_.Add(absl::StrCat("no reply to ticket ", static_cast<int64_t>(ticket)));
  if (reply.step != report_->step) violations_.Add(absl::StrCat("a reply of step ", reply.step));
  if (reply.revision != report_->revision) violations_.Add(absl::StrCat("a reply of revision ", reply.revision));
  return reply.ticket == ticket ? &reply : nullptr;
}

const std::vector<OperationResult>* VerbOracle::NextResults(Ticket ticket, const std::vector<GenerationId>& ids) {
  const Reply* reply = NextReply(ticket);
  if (reply == nullptr) return nullptr;
  const auto* results = std::get_if<std::vector<OperationResult>>(&reply->result);
  const bool fits = results != nullptr && results->size() == ids.size() &&
                    std::equal(ids.begin(), ids.end(), results->begin(),
                               [](const GenerationId& id, const OperationResult& result) { return id == result.id; });
  if (fits) return results;
  violations_.Add(absl::StrCat("ticket ", static_cast<int64_t>(ticket), " gets results for other ids"));
  return nullptr;
}

template <typename Verb>
void VerbOracle::ForEach(Ticket ticket, const std::vector<GenerationId>& ids, Verb verb) {
  const std::vector<OperationResult>* results = NextResults(ticket, ids);
  if (results == nullptr) return;
  for (const OperationResult& result : *results) {
    ExpectedGeneration* generation = Find(result.id);
    const absl::StatusCode code = generation == nullptr ? absl::StatusCode::kNotFound : verb(*generation);
    CheckResult(result, code, generation);
  }
}

void VerbOracle::CheckResult(const OperationResult& result, absl::StatusCode code,
                             const ExpectedGeneration* generation) {
  if (result.status.code() != code) {
    violations_.Add(absl::StrCat(result.id.value(), " gets ", result.status.ToString(), "; it should be ",
                                 absl::StatusCodeToString(code)));
    return;
  }
  if (result.generation.has_value() != result.status.ok()) violations_.Add("a result with an error and a generation");
  if (result.generation.has_value()) CheckInfo(*result.generation, *generation);
  if (result.status.ok()) return;
  for (const std::string& name : {result.id.value(), NameInMessage(code)}) {
    if (absl::StrContains(result.status.message(), name)) continue;
    violations_.Add(absl::StrCat("an error that does not name ", name, ": ", result.status.ToString()));
  }
}

void VerbOracle::CheckInfo(const GenerationInfo& info, const ExpectedGeneration& generation) {
  const GenerationKey key = generation.key;
  if (info.key != key || info.id != generation.id) violations_.Add(key, "is answered with another one");
  if (info.state != generation.state) {
    violations_.Add(key, absl::StrCat("is said to be ", Name(info.state), "; it is ", Name(generation.state)));
  }
  if (info.usage.output_token_count != generation.output_token_count) {
    violations_.Add(key, absl::StrCat("is said to have ", info.usage.output_token_count, " tokens; it has ",
                                      generation.output_token_count));
  }
  if (info.priority != generation.spec.priority) violations_.Add(key, "is shown with another priority");
  const PauseInfo& pause = info.pause;
  const PauseInfo& expected = generation.pause;
  if (std::tie(pause.by_control, pause.by_disconnect, pause.reason, pause.lease_expire_time) !=
      std::tie(expected.by_control, expected.by_disconnect, expected.reason, expected.lease_expire_time)) {
    violations_.Add(key, "is shown with another pause");
  }
  const absl::Duration life = (IsLive(info.state) ? now_ : generation.finish_time) - generation.create_time;
  const Usage& usage = info.usage;
  if (usage.queued_duration + usage.running_duration + usage.paused_duration != life) {
    violations_.Add(key, "has durations that do not add up to its life");
  }
}

void VerbOracle::On(const EnqueueCommand& command) {
  const std::vector<OperationResult>* results = NextResults(command.ticket, {command.id});
  if (results == nullptr) return;
  const OperationResult& result = results->front();
  ExpectedGeneration* generation = Find(command.id);
  const bool is_new = generation == nullptr;
  absl::StatusCode code = absl::StatusCode::kOk;
  if (is_new) {
    code = CodeOfNew(command);
  } else if (generation->digest != command.body_digest) {
    code = absl::StatusCode::kAlreadyExists;
  }
  const bool creates = is_new && code == absl::StatusCode::kOk;
  if (result.created != creates) violations_.Add(absl::StrCat(command.id.value(), ": `created` is not true"));
  if (creates && result.generation.has_value()) {
    Begin(command, result.generation->key);
    generation = Find(command.id);
  }
  if (code == absl::StatusCode::kOk && command.attach_reader && generation != nullptr) AddReader(*generation);
  CheckResult(result, code, generation);
}

absl::StatusCode VerbOracle::CodeOfNew(const EnqueueCommand& command) const {
  if (draining_) return absl::StatusCode::kUnavailable;
  const int64_t tokens = static_cast<int64_t>(command.spec.prompt.size()) + command.spec.sampling.max_tokens;
  if (tokens > options_.context_tokens || tokens > int64_t{options_.block_count} * options_.block_tokens) {
    return absl::StatusCode::kInvalidArgument;
  }
  const int64_t live = static_cast<int64_t>(by_key_.size()) - CountIn(State::kFinished);
  const bool queue_is_full = CountIn(State::kQueued) >= options_.max_queued;
  if (live >= options_.max_live || (!command.hold && queue_is_full)) return absl::StatusCode::kResourceExhausted;
  return absl::StatusCode::kOk;
}

void VerbOracle::Begin(const EnqueueCommand& command, GenerationKey key) {
  if (key <= last_key_) violations_.Add(key, "begins with a key that does not rise");
  last_key_ = key;
  by_id_[command.id] = key;
  ExpectedGeneration& generation = by_key_[key];
  generation.key = key;
  generation.id = command.id;
  generation.digest = command.body_digest;
  generation.spec = command.spec;
  generation.create_time = now_;
  generation.pause.by_control = command.hold;
  Move(generation, command.hold ? State::kPaused : State::kQueued, Cause::kEnqueue);
}

void VerbOracle::Move(ExpectedGeneration& generation, State to, Cause cause) {
  events_.push_back({generation.key, std::nullopt, generation.state, to, cause});
  generation.state = to;
  if (to != State::kFinished) return;
  generation.finish_time = now_;
  generation.pause = PauseInfo();
  finished_.push_back(generation.key);
}

void VerbOracle::AddReader(ExpectedGeneration& generation) {
  ++generation.reader_count;
  if (!generation.pause.by_disconnect) return;
  generation.pause.by_disconnect = false;
  generation.pause.lease_expire_time = absl::InfiniteFuture();
  if (!generation.pause.by_control)
    Move(generation, generation.has_kv ? State::kPreempted : State::kQueued, Cause::kAttach);
}

void VerbOracle::On(const PreemptCommand& command) {
  ForEach(command.ticket, command.ids, [&](ExpectedGeneration& generation) {
    if (!IsLive(generation.state)) return absl::StatusCode::kFailedPrecondition;
    if (!generation.pause.by_control) {
      generation.pause.by_control = true;
      generation.pause.reason = command.reason;
      if (generation.state != State::kPaused) Move(generation, State::kPaused, Cause::kPreempt);
    }
    return absl::StatusCode::kOk;
  });
}

void VerbOracle::On(const ContinueCommand& command) {
  ForEach(command.ticket, command.ids, [&](ExpectedGeneration& generation) {
    if (!IsLive(generation.state)) return absl::StatusCode::kFailedPrecondition;
    if (generation.state == State::kPaused) {
      generation.pause = PauseInfo();
      Move(generation, generation.has_kv ? State::kPreempted : State::kQueued, Cause::kContinue);
    }
    return absl::StatusCode::kOk;
  });
}

void VerbOracle::On(const AbortCommand& command) {
  ForEach(command.ticket, command.ids, [&](ExpectedGeneration& generation) {
    if (IsLive(generation.state)) Move(generation, State::kFinished, Cause::kAbort);
    return absl::StatusCode::kOk;
  });
}

void VerbOracle::On(const SetPriorityCommand& command) {
  ForEach(command.ticket, command.ids, [&](ExpectedGeneration& generation) {
    if (!IsLive(generation.state)) return absl::StatusCode::kFailedPrecondition;
    if (generation.spec.priority != command.priority) {
      generation.spec.priority = command.priority;
      events_.push_back({.key = generation.key, .priority = command.priority});
    }
    return absl::StatusCode::kOk;
  });
}

void VerbOracle::On(const AttachCommand& command) {
  ForEach(command.ticket, {command.id}, [&](ExpectedGeneration& generation) {
    if (command.offset < 0 || command.offset > generation.output_token_count) return absl::StatusCode::kOutOfRange;
    AddReader(generation);
    return absl::StatusCode::kOk;
  });
}

void VerbOracle::On(const DetachCommand& command) {
  const auto it = by_key_.find(command.key);
  if (it == by_key_.end() || it->second.reader_count == 0) return;
  ExpectedGeneration& generation = it->second;
  --generation.reader_count;
  if (generation.reader_count > 0 || !IsLive(generation.state)) return;
  switch (generation.spec.on_disconnect) {
    case OnDisconnect::kAbort:
      Move(generation, State::kFinished, Cause::kDisconnect);
      break;
    case OnDisconnect::kPause:
      generation.pause.by_disconnect = true;
      generation.pause.lease_expire_time = now_ + options_.disconnect_lease;
      if (generation.state != State::kPaused) Move(generation, State::kPaused, Cause::kDisconnect);
      break;
    case OnDisconnect::kContinue:
      break;
  }
}

void VerbOracle::On(const GetGenerationCommand& command) {
  ForEach(command.ticket, {command.id}, [](ExpectedGeneration&) { return absl::StatusCode::kOk; });
}

void VerbOracle::On(const ListGenerationsCommand& command) {
  const Reply* reply = NextReply(command.ticket);
  if (reply == nullptr) return;
  const auto* page = std::get_if<GenerationPage>(&reply->result);
  if (page == nullptr) return violations_.Add("a list is answered with something else");
  auto listed = page->generations.begin();
  auto it = by_key_.upper_bound(command.after);
  for (; it != by_key_.end() && page->generations.size() > static_cast<size_t>(listed - page->generations.begin());
       ++it) {
    const ExpectedGeneration& generation = it->second;
    if (!command.states.empty() && !absl::c_linear_search(command.states, generation.state)) continue;
    if (listed->key != generation.key) return violations_.Add(generation.key, "is missing in a list");
    CheckInfo(*listed++, generation);
  }
  if (listed != page->generations.end()) violations_.Add("a list with somebody who does not exist");
  const bool full = page->generations.size() == static_cast<size_t>(command.page_size);
  const bool others = std::any_of(it, by_key_.end(), [&](const auto& entry) {
    return command.states.empty() || absl::c_linear_search(command.states, entry.second.state);
  });
  if (others && (!full || !page->next_after.has_value())) violations_.Add("a list ends too early");
}

void VerbOracle::On(const GetEngineCommand& command) {
  const Reply* reply = NextReply(command.ticket);
  if (reply == nullptr) return;
  const auto* info = std::get_if<EngineInfo>(&reply->result);
  if (info == nullptr) return violations_.Add("GetEngine is answered with something else");
  for (int state = 1; state < kGenerationStateCount; ++state) {
    if (info->count_by_state[state] == CountIn(State{state})) continue;
    violations_.Add(absl::StrCat("GetEngine counts ", info->count_by_state[state], " ", Name(State{state})));
  }
  const int64_t held = info->block_running_count + info->block_paused_count + info->block_preempted_count;
  if (info->block_count != options_.block_count || info->block_free_count + held != info->block_count) {
    violations_.Add("GetEngine's blocks do not add up");
  }
  if (info->recomputed_token_total != 0) violations_.Add("GetEngine shows recomputed tokens");
  if (info->draining != draining_) violations_.Add("GetEngine is wrong about the drain");
}

void VerbOracle::On(const DrainCommand&) { draining_ = true; }

void VerbOracle::On(const AbortAllCommand&) {
  for (auto& [key, generation] : by_key_) {
    if (IsLive(generation.state)) Move(generation, State::kFinished, Cause::kDrain);
  }
}

void VerbOracle::FireTimers() {
  // (when, who, what): a timeout goes before a lease of the same instant.
  std::vector<std::tuple<absl::Time, GenerationKey, Cause>> due;
  for (const auto& [key, generation] : by_key_) {
    if (!IsLive(generation.state)) continue;
    const std::tuple<absl::Time, GenerationKey, Cause> timeout = {generation.create_time + generation.spec.timeout, key,
                                                                  Cause::kTimeout};
    const std::tuple<absl::Time, GenerationKey, Cause> lease = {generation.pause.lease_expire_time, key,
                                                                Cause::kDisconnect};
    const auto& first = std::get<absl::Time>(lease) < std::get<absl::Time>(timeout) ? lease : timeout;
    if (std::get<absl::Time>(first) <= now_) due.push_back(first);
  }
  std::sort(due.begin(), due.end());
  for (const auto& [time, key, cause] : due) Move(by_key_.at(key), State::kFinished, cause);
}

void VerbOracle::CheckEvents(const Report& report) {
  size_t next = 0;
  for (const Event& event : report.events) {
    if (std::holds_alternative<TextReleased>(event)) continue;
    if (next == events_.size()) return violations_.Add("a boundary reports more than it was asked for");
    const ExpectedEvent& expected = events_[next++];
    bool same = false;
    if (const auto* change = std::get_if<StateChanged>(&event)) {
      same = !expected.priority.has_value() && change->key == expected.key && change->from == expected.from &&
             change->to == expected.to && change->cause == expected.cause;
    } else if (const auto* priority = std::get_if<PriorityChanged>(&event)) {
      same = priority->key == expected.key && priority->priority == expected.priority;
    }
    if (same) continue;
    return violations_.Add(expected.key, absl::StrCat("should go from ", Name(expected.from), " to ", Name(expected.to),
                                                      " by ", Name(expected.cause), "; something else happens"));
  }
  if (next < events_.size()) violations_.Add(events_[next].key, "should change at this boundary, and does not");
}

void VerbOracle::CheckForgotten(const Report& report) {
  std::vector<GenerationKey> expected;
  const auto is_due = [this] {
    return static_cast<int64_t>(finished_.size()) > options_.max_finished ||
           by_key_.at(finished_.front()).finish_time + options_.finished_age <= now_;
  };
  while (!finished_.empty() && is_due()) {
    const GenerationKey key = finished_.front();
    finished_.pop_front();
    by_id_.erase(by_key_.at(key).id);
    by_key_.erase(key);
    expected.push_back(key);
  }
  if (report.forgotten != expected) violations_.Add("forgets others than the oldest finished ones that are due");
}

}  // namespace fermata
