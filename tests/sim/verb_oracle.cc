#include "tests/sim/verb_oracle.h"

#include <algorithm>
#include <string>
#include <tuple>
#include <variant>

#include "absl/algorithm/container.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

using State = GenerationState;

// What the message of an error must name, for clients to act on; empty: nothing in particular.
std::string NameInMessage(absl::StatusCode code) { return code == absl::StatusCode::kResourceExhausted ? "max_" : ""; }

auto Comparable(const PauseInfo& pause) {
  return std::tie(pause.by_control, pause.reason, pause.session_id, pause.lease_expire_time, pause.on_lease_expiry,
                  pause.by_disconnect, pause.disconnect_expire_time);
}

}  // namespace

void VerbOracle::OnBoundary(absl::Time now, const std::vector<Command>& commands, const Report& report) {
  now_ = now;
  report_ = &report;
  next_reply_ = 0;
  snapshots_.clear();
  world_.Begin(now);
  // What cannot be read back is lost, before anything else happens: the moves that are done come first.
  for (const Event& event : report.events) {
    const auto* moved = std::get_if<KvMoved>(&event);
    if (moved != nullptr && !moved->error.empty() && moved->from == KvTier::kDisk) world_.LoseKv(moved->key);
  }
  for (const Command& command : commands) {
    std::visit([this](const auto& typed) { On(typed); }, command);
  }
  world_.FireTimers();
  // Who gives way where everybody waits for blocks depends on blocks, which are not looked at here: only that it waits.
  for (const Event& event : report.events) {
    const auto* change = std::get_if<StateChanged>(&event);
    if (change != nullptr && change->cause == Cause::kError) world_.EndStandstill(change->key);
    // Nor who is displaced for blocks: only that it ran.
    if (change != nullptr && change->cause == Cause::kScheduler) world_.Displace(change->key);
    const auto* moved = std::get_if<KvMoved>(&event);
    if (moved != nullptr && moved->to == KvTier::kNone) world_.DropKv(moved->key);
  }
  for (const Ticket ticket : snapshots_) CheckSnapshot(ticket);
  if (next_reply_ < report.replies.size()) violations_.Add("more replies than commands that have one");
  CheckEvents(report);
  CheckForgotten(report);
}

void VerbOracle::OnStep(absl::Time now, const ObservedGenerations& generations, const Report& report) {
  now_ = now;
  if (!report.replies.empty()) violations_.Add("a step replies to nobody");
  // In the order of the report, for that is the order in which the finished ones age.
  for (const Event& event : report.events) {
    if (const auto* change = std::get_if<StateChanged>(&event))
      world_.SetState(change->key, change->to, change->cause, now);
  }
  for (const auto& [key, observed] : generations) {
    world_.SetComputed(key, static_cast<int64_t>(observed.tokens.size()), observed.computed_token_count > 0);
  }
  CheckForgotten(report);
}

std::vector<GenerationKey> VerbOracle::WithReaders() const {
  std::vector<GenerationKey> keys;
  for (const auto& [key, generation] : world_.generations()) {
    if (generation.reader_count > 0) keys.push_back(key);
  }
  return keys;
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

template <typename Result>
const Result* VerbOracle::NextResult(Ticket ticket) {
  const Reply* reply = NextReply(ticket);
  if (reply == nullptr) return nullptr;
  const Result* result = reply->status.ok() ? std::get_if<Result>(&reply->result) : nullptr;
  if (result != nullptr) return result;
  violations_.Add(absl::StrCat("ticket ", static_cast<int64_t>(ticket),
                               " is answered with something else: ", reply->status.ToString()));
  return nullptr;
}

void VerbOracle::ExpectError(Ticket ticket, absl::StatusCode code) {
  const Reply* reply = NextReply(ticket);
  if (reply == nullptr) return;
  if (reply->status.code() != code || reply->status.message().empty()) {
    violations_.Add(absl::StrCat("ticket ", static_cast<int64_t>(ticket), " gets ", reply->status.ToString(),
                                 "; it should be ", absl::StatusCodeToString(code)));
  }
}

void VerbOracle::Compare(Ticket ticket, const std::vector<ExpectedResult>& expected) {
  const auto* results = NextResult<std::vector<OperationResult>>(ticket);
  if (results == nullptr) return;
  const bool fits = std::equal(
      expected.begin(), expected.end(), results->begin(), results->end(),
      [](const ExpectedResult& expected, const OperationResult& result) { return expected.id == result.id; });
  if (!fits) {
    violations_.Add(absl::StrCat("ticket ", static_cast<int64_t>(ticket), " gets results for other ids"));
    return;
  }
  for (size_t i = 0; i < expected.size(); ++i) Compare((*results)[i], expected[i]);
}

void VerbOracle::Compare(const OperationResult& result, const ExpectedResult& expected) {
  if (result.status.code() != expected.code) {
    violations_.Add(absl::StrCat(result.id.value(), " gets ", result.status.ToString(), "; it should be ",
                                 absl::StatusCodeToString(expected.code)));
    return;
  }
  if (result.created != expected.created) violations_.Add(absl::StrCat(result.id.value(), ": `created` is not true"));
  if (result.generation.has_value() != result.status.ok()) violations_.Add("a result with an error and a generation");
  if (result.generation.has_value()) CheckInfo(*result.generation, *expected.generation);
  if (result.status.ok() || expected.code == absl::StatusCode::kAborted) return;
  for (const std::string& name : {result.id.value(), NameInMessage(expected.code)}) {
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
  if (info.usage.appended_token_count != generation.appended_token_count) {
    violations_.Add(key, "is shown with more or less appended than it was given");
  }
  if (info.priority != generation.spec.priority) violations_.Add(key, "is shown with another priority");
  if (Comparable(info.pause) != Comparable(generation.pause)) violations_.Add(key, "is shown with another pause");
  const absl::Duration life = (IsLive(info.state) ? now_ : generation.finish_time) - generation.create_time;
  const Usage& usage = info.usage;
  if (usage.queued_duration + usage.running_duration + usage.paused_duration != life) {
    violations_.Add(key, "has durations that do not add up to its life");
  }
}

template <typename Verb>
void VerbOracle::On(const Verb& command) {
  const absl::StatusCode code = world_.CodeOf(command.caller);
  if (code != absl::StatusCode::kOk) return ExpectError(command.ticket, code);
  std::vector<ExpectedResult> results;
  world_.Do(command, results);
  Compare(command.ticket, results);
}

void VerbOracle::On(const ApplyCommand& command) {
  const absl::StatusCode code = world_.CodeOf(command.caller);
  if (code != absl::StatusCode::kOk) return ExpectError(command.ticket, code);
  // In a world of its own, until it is known whether it counts.
  ExpectedWorld changed = world_;
  std::vector<ExpectedResult> results;
  for (Operation operation : command.operations) {
    std::visit(
        [&](auto& verb) {
          verb.caller = command.caller;
          changed.Do(verb, results);
        },
        operation);
  }
  const auto failed =
      absl::c_find_if(results, [](const ExpectedResult& result) { return result.code != absl::StatusCode::kOk; });
  if (!command.atomic || failed == results.end()) {
    world_ = std::move(changed);
  } else {
    const GenerationId id = failed->id;
    const absl::StatusCode failed_code = failed->code;
    const size_t place = failed - results.begin();
    for (ExpectedResult& result : results) result = {.id = result.id, .code = absl::StatusCode::kAborted};
    results[place] = {.id = id, .code = failed_code};
  }
  Compare(command.ticket, results);
}

void VerbOracle::CompareSession(Ticket ticket, const SessionInfo& expected) {
  const auto* session = NextResult<SessionInfo>(ticket);
  if (session == nullptr) return;
  if (std::tie(session->session_id, session->epoch, session->ttl) !=
      std::tie(expected.session_id, expected.epoch, expected.ttl)) {
    violations_.Add(absl::StrCat("session ", expected.session_id, " is answered with another one"));
  }
}

void VerbOracle::On(const OpenSessionCommand& command) {
  const std::optional<SessionInfo> opened = world_.Open(command);
  if (!opened.has_value()) return ExpectError(command.ticket, absl::StatusCode::kAlreadyExists);
  CompareSession(command.ticket, *opened);
}

void VerbOracle::On(const KeepSessionAliveCommand& command) {
  const absl::StatusCode code = world_.CodeOf(command.caller);
  if (code != absl::StatusCode::kOk) return ExpectError(command.ticket, code);
  CompareSession(command.ticket, world_.KeepAlive(command.caller.session_id));
}

void VerbOracle::On(const CloseSessionCommand& command) {
  const absl::StatusCode code = world_.CodeOf(command.caller);
  if (code != absl::StatusCode::kOk) return ExpectError(command.ticket, code);
  CompareSession(command.ticket, world_.Close(command.caller.session_id));
}

void VerbOracle::On(const AttachCommand& command) {
  std::vector<ExpectedResult> results;
  world_.Do(command, results);
  Compare(command.ticket, results);
}

void VerbOracle::On(const GetGenerationCommand& command) {
  std::vector<ExpectedResult> results;
  world_.Do(command, results);
  Compare(command.ticket, results);
}

void VerbOracle::On(const ListGenerationsCommand& command) {
  const auto* page = NextResult<GenerationPage>(command.ticket);
  if (page == nullptr) return;
  const auto& generations = world_.generations();
  auto listed = page->generations.begin();
  auto it = generations.upper_bound(command.after);
  for (; it != generations.end() && page->generations.size() > static_cast<size_t>(listed - page->generations.begin());
       ++it) {
    const ExpectedGeneration& generation = it->second;
    if (!command.states.empty() && !absl::c_linear_search(command.states, generation.state)) continue;
    if (listed->key != generation.key) return violations_.Add(generation.key, "is missing in a list");
    CheckInfo(*listed++, generation);
  }
  if (listed != page->generations.end()) violations_.Add("a list with somebody who does not exist");
  const bool full = page->generations.size() == static_cast<size_t>(command.page_size);
  const bool others = std::any_of(it, generations.end(), [&](const auto& entry) {
    return command.states.empty() || absl::c_linear_search(command.states, entry.second.state);
  });
  if (others && (!full || !page->next_after.has_value())) violations_.Add("a list ends too early");
}

void VerbOracle::On(const GetEngineCommand& command) {
  const auto* info = NextResult<EngineInfo>(command.ticket);
  if (info == nullptr) return;
  for (int state = 1; state < kGenerationStateCount; ++state) {
    if (info->count_by_state[state] == world_.CountIn(State{state})) continue;
    violations_.Add(absl::StrCat("GetEngine counts ", info->count_by_state[state], " ", Name(State{state})));
  }
  for (const KvPoolInfo* pool : {&info->device, &info->host}) {
    const int64_t sum = pool->free_count + pool->cached_count + pool->running_count + pool->preempted_count +
                        pool->paused_count + pool->moving_count;
    if (sum != pool->block_count) violations_.Add("GetEngine's blocks do not add up");
  }
  if (info->device.block_count != options_.block_count || info->host.block_count != options_.host_block_count ||
      info->disk.block_count != options_.disk_block_count) {
    violations_.Add("GetEngine shows other pools");
  }
  if (info->recomputed_token_total != 0 && !options_.allow_recompute)
    violations_.Add("GetEngine shows recomputed tokens");
  if (info->draining != world_.draining()) violations_.Add("GetEngine is wrong about the drain");
}

void VerbOracle::CheckSnapshot(Ticket ticket) {
  const auto* page = NextResult<GenerationPage>(ticket);
  if (page == nullptr) return;
  auto listed = page->generations.begin();
  for (const auto& [key, generation] : world_.generations()) {
    if (!IsLive(generation.state)) continue;
    if (listed == page->generations.end() || listed->key != key) {
      return violations_.Add(key, "is missing in a snapshot");
    }
    CheckInfo(*listed++, generation);
  }
  if (listed != page->generations.end()) violations_.Add("a snapshot with somebody who does not live");
}

void VerbOracle::CheckEvents(const Report& report) {
  const std::vector<ExpectedEvent>& events = world_.events();
  size_t next = 0;
  for (const Event& event : report.events) {
    // What the engine does of itself, which the observer looks at.
    if (std::holds_alternative<TextReleased>(event) || std::holds_alternative<KvMoved>(event) ||
        std::holds_alternative<Progress>(event)) {
      continue;
    }
    if (next == events.size()) return violations_.Add("a boundary reports more than it was asked for");
    const ExpectedEvent& expected = events[next++];
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
  if (next < events.size()) violations_.Add(events[next].key, "should change at this boundary, and does not");
}

void VerbOracle::CheckForgotten(const Report& report) {
  if (report.forgotten != world_.Forget(now_)) {
    violations_.Add("forgets others than the oldest finished ones that are due");
  }
}

}  // namespace fermata
