#include "engine/core/command_processor.h"

#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "engine/core/apply_judge.h"
#include "engine/core/check.h"
#include "engine/core/unpark.h"
#include "engine/core/verb_rules.h"

namespace fermata {
namespace {

// Whether another process can go on with it from what is on disk.
bool IsOnDisk(const Generation& generation) {
  const HeldKv& kv = generation.kv;
  return generation.state() == GenerationState::kPaused && kv.has_file &&
         (kv.tier == KvTier::kDisk || generation.computed_token_count == 0);
}

bool Matches(const Generation& generation, const ListGenerationsCommand& filter) {
  return (filter.states.empty() || absl::c_linear_search(filter.states, generation.state())) &&
         (filter.tenant.empty() || filter.tenant == generation.spec.tenant) &&
         (filter.traffic_class.empty() || filter.traffic_class == generation.spec.traffic_class);
}

}  // namespace

void CommandProcessor::Apply(Command command) {
  std::visit([this](auto& typed) { On(typed); }, command);
}

void CommandProcessor::On(EnqueueCommand& command) {
  if (Refused(command.ticket, command.caller)) return;
  std::vector<OperationResult> results;
  Do(command, &results);
  Answer(command.ticket, std::move(results));
}

template <typename Verb>
void CommandProcessor::OnVerb(Verb& command) {
  if (Refused(command.ticket, command.caller) || TooMany(command.ticket, Resolve(command))) return;
  std::vector<OperationResult> results;
  Do(command, &results);
  Answer(command.ticket, std::move(results));
}

void CommandProcessor::On(PreemptCommand& command) { OnVerb(command); }
void CommandProcessor::On(ContinueCommand& command) { OnVerb(command); }
void CommandProcessor::On(AbortCommand& command) { OnVerb(command); }
void CommandProcessor::On(SetPriorityCommand& command) { OnVerb(command); }

void CommandProcessor::On(ApplyCommand& command) {
  if (Refused(command.ticket, command.caller)) return;
  for (Operation& operation : command.operations) {
    std::visit([&](auto& verb) { verb.caller = command.caller; }, operation);
  }
  std::vector<OperationResult> judged = ApplyJudge(state_).JudgeAll(command.operations);
  if (TooMany(command.ticket, static_cast<int64_t>(judged.size()))) return;
  const auto failed = absl::c_find_if(judged, [](const OperationResult& result) { return !result.status.ok(); });
  if (command.atomic && failed != judged.end()) {
    const absl::Status others = absl::AbortedError(
        absl::StrCat("not done: nothing of this Apply was, because of generation \"", failed->id.value(), "\""));
    for (auto it = judged.begin(); it != judged.end(); ++it) {
      if (it != failed) it->status = others;
    }
    Answer(command.ticket, std::move(judged));
    return;
  }
  std::vector<OperationResult> results;
  results.reserve(judged.size());
  for (Operation& operation : command.operations) {
    // By a selector it is resolved again: on what those before have made of it.
    std::visit(
        [&](auto& verb) {
          if constexpr (!std::is_same_v<std::decay_t<decltype(verb)>, EnqueueCommand>) Resolve(verb);
          Do(verb, &results);
        },
        operation);
  }
  FERMATA_CHECK(results.size() == judged.size());
  Answer(command.ticket, std::move(results));
}

bool CommandProcessor::Refused(Ticket ticket, const Caller& caller) {
  absl::Status status = state_.sessions.Check(caller);
  if (status.ok()) return false;
  state_.journal.Record(Reply{.ticket = ticket, .status = std::move(status)});
  return true;
}

bool CommandProcessor::TooMany(Ticket ticket, int64_t count) {
  if (count <= kMaxSelected) return false;
  state_.journal.Record(Reply{
      .ticket = ticket,
      .status = absl::FailedPreconditionError(absl::StrCat(count, " generations are meant; at most ", kMaxSelected,
                                                           " are allowed at once: choose more narrowly"))});
  return true;
}

void CommandProcessor::Answer(Ticket ticket, std::vector<OperationResult> results) {
  state_.journal.Record(Reply{.ticket = ticket, .result = std::move(results)});
}

template <typename Verb>
int64_t CommandProcessor::Resolve(Verb& command) const {
  if (command.selector.has_value()) command.ids = Select(state_, *command.selector);
  return static_cast<int64_t>(command.ids.size());
}

void CommandProcessor::Do(EnqueueCommand& command, std::vector<OperationResult>* results) {
  OperationResult& result = results->emplace_back();
  result.id = command.id;
  Generation* generation = state_.table.Find(command.id);
  Standing standing = generation == nullptr ? Standing() : StandingOf(state_, *generation);
  result.status = Judge(command, state_, OccupancyOf(state_), standing);
  if (!result.status.ok()) return;
  if (generation == nullptr) {
    generation = &Create(command);
    result.created = true;
  }
  if (command.attach_reader) AddReader(*generation);
  result.generation = Describe(*generation);
}

Generation& CommandProcessor::Create(EnqueueCommand& command) {
  Generation& generation = state_.table.Insert(command.id);
  generation.body_digest = std::move(command.body_digest);
  generation.spec = std::move(command.spec);
  generation.context = std::exchange(generation.spec.prompt, {});
  generation.prompt_token_count = static_cast<int32_t>(generation.context.size());
  std::optional<ControlHold> hold;
  if (command.hold) hold = ControlHold{.lease = command.lease, .session_id = command.caller.session_id};
  life_cycle_.Begin(generation, hold);
  return generation;
}

void CommandProcessor::Do(PreemptCommand& command, std::vector<OperationResult>* results) {
  ForEach(command, results, [&](Generation& generation) {
    ControlHold hold = {command.reason, command.lease, command.caller.session_id};
    // What holds an operator's pause is the operator: a session's lease does not end it.
    const bool owns = !generation.pause.by_control || command.caller.session_id.empty() ||
                      command.caller.session_id == generation.pause.session_id;
    if (!owns) hold.lease = Lease();
    life_cycle_.HoldByControl(generation, hold);
    if (command.tier != KvTier::kNone) life_cycle_.SendTo(generation, command.tier);
  });
}

void CommandProcessor::Do(ContinueCommand& command, std::vector<OperationResult>* results) {
  ForEach(command, results, [&](Generation& generation) {
    const Standing standing = StandingOf(state_, generation);
    if (standing.state != GenerationState::kPaused || IsRepeated(command, standing)) return;
    if (command.max_tokens.has_value()) life_cycle_.SetMaxTokens(generation, *command.max_tokens);
    if (!command.append.empty()) {
      life_cycle_.Append(generation, TokensToAppend(command, standing), command.append_id);
    }
    life_cycle_.ReleaseHolds(generation, Cause::kContinue);
  });
}

void CommandProcessor::Do(AbortCommand& command, std::vector<OperationResult>* results) {
  const std::string message = command.reason.empty() ? "aborted by request" : command.reason;
  ForEach(command, results, [&](Generation& generation) {
    if (generation.live()) life_cycle_.Finish(generation, FinishReason::kAborted, Cause::kAbort, message);
  });
}

void CommandProcessor::Do(SetPriorityCommand& command, std::vector<OperationResult>* results) {
  ForEach(command, results, [&](Generation& generation) { life_cycle_.SetPriority(generation, command.priority); });
}

template <typename Verb>
void CommandProcessor::ForEach(const Verb& command, std::vector<OperationResult>* results,
                               absl::FunctionRef<void(Generation&)> act) {
  results->reserve(results->size() + command.ids.size());
  for (const GenerationId& id : command.ids) {
    OperationResult& result = results->emplace_back();
    result.id = id;
    Generation* generation = state_.table.Find(id);
    Standing standing = generation == nullptr ? Standing() : StandingOf(state_, *generation);
    result.status = Judge(command, state_, id, standing);
    if (!result.status.ok()) continue;
    act(*generation);
    result.generation = Describe(*generation);
  }
}

void CommandProcessor::On(OpenSessionCommand& command) {
  absl::StatusOr<SessionInfo> session = state_.sessions.Open(command, state_.journal.now());
  if (session.ok()) {
    state_.journal.Record(Reply{.ticket = command.ticket, .result = *std::move(session)});
  } else {
    state_.journal.Record(Reply{.ticket = command.ticket, .status = session.status()});
  }
}

void CommandProcessor::On(KeepSessionAliveCommand& command) {
  if (Refused(command.ticket, command.caller)) return;
  state_.journal.Record(
      Reply{.ticket = command.ticket, .result = state_.sessions.KeepAlive(command.caller, state_.journal.now())});
}

void CommandProcessor::On(CloseSessionCommand& command) {
  if (Refused(command.ticket, command.caller)) return;
  SessionInfo session = state_.sessions.Describe(command.caller);
  EndSession(command.caller.session_id);
  state_.journal.Record(Reply{.ticket = command.ticket, .result = std::move(session)});
}

void CommandProcessor::EndSession(const std::string& session_id) {
  for (const GenerationKey key : state_.sessions.Close(session_id)) {
    life_cycle_.EndControlHold(*state_.table.Find(key), Cause::kSession);
  }
}

void CommandProcessor::On(AttachCommand& command) {
  ForOne(command.ticket, command.id, [&](Generation& generation) {
    if (command.offset < 0 || command.offset > generation.output_token_count) {
      return absl::OutOfRangeError(absl::StrCat("offset is ", command.offset, "; generation \"", command.id.value(),
                                                "\" allows 0 to ", generation.output_token_count));
    }
    AddReader(generation);
    return absl::OkStatus();
  });
}

void CommandProcessor::ForOne(Ticket ticket, const GenerationId& id, absl::FunctionRef<absl::Status(Generation&)> act) {
  std::vector<OperationResult> results;
  OperationResult& result = results.emplace_back();
  result.id = id;
  Generation* generation = state_.table.Find(id);
  result.status = generation == nullptr ? UnknownGeneration(id) : act(*generation);
  if (result.status.ok()) result.generation = Describe(*generation);
  Answer(ticket, std::move(results));
}

void CommandProcessor::AddReader(Generation& generation) {
  ++generation.reader_count;
  life_cycle_.ReleaseDisconnectHold(generation, Cause::kAttach);
}

void CommandProcessor::On(DetachCommand& command) {
  Generation* generation = state_.table.Find(command.key);
  if (generation == nullptr || generation->reader_count == 0) return;
  --generation->reader_count;
  if (generation->reader_count > 0 || !generation->live()) return;
  switch (generation->spec.on_disconnect) {
    case OnDisconnect::kAbort:
      life_cycle_.Finish(*generation, FinishReason::kAborted, Cause::kDisconnect, "the last reader left");
      break;
    case OnDisconnect::kPause:
      life_cycle_.HoldByDisconnect(*generation);
      break;
    case OnDisconnect::kContinue:
      break;
  }
}

void CommandProcessor::On(GetGenerationCommand& command) {
  ForOne(command.ticket, command.id, [](Generation&) { return absl::OkStatus(); });
}

void CommandProcessor::On(ListGenerationsCommand& command) {
  GenerationPage page;
  const size_t page_size = std::clamp(command.page_size, 1, ListGenerationsCommand::kMaxScanned);
  const GenerationTable::Map& all = state_.table.all();
  auto it = all.upper_bound(command.after);
  GenerationKey last = command.after;
  for (int scanned = 0; it != all.end() && scanned < ListGenerationsCommand::kMaxScanned; ++it, ++scanned) {
    if (page.generations.size() == page_size) break;
    const Generation& generation = *it->second;
    last = generation.key;
    if (Matches(generation, command)) page.generations.push_back(Describe(generation));
  }
  // After the last one looked at, not the last one found: the next page need not look at them again.
  if (it != all.end()) page.next_after = last;
  state_.journal.Record(Reply{.ticket = command.ticket, .result = std::move(page)});
}

void CommandProcessor::On(GetEngineCommand& command) {
  EngineInfo info = state_.counters;
  info.device.block_count = state_.pool.block_count();
  info.device.free_count = state_.pool.free_count();
  info.device.cached_count = state_.cache.unused_count();
  info.device.running_count += state_.cache.count(KvUse::kRunning);
  info.device.preempted_count += state_.cache.count(KvUse::kWaiting);
  info.device.paused_count += state_.cache.count(KvUse::kPaused);
  info.host.block_count = state_.host_pool.block_count();
  info.host.free_count = state_.host_pool.free_count();
  info.disk.block_count = state_.options.disk_block_count;
  info.disk.free_count = state_.options.disk_block_count - state_.disk_used_count;
  info.step = state_.journal.step();
  state_.journal.Record(Reply{.ticket = command.ticket, .result = info});
}

void CommandProcessor::On(SnapshotCommand& command) { snapshots_.push_back(command.ticket); }

void CommandProcessor::AnswerSnapshots() {
  for (const Ticket ticket : std::exchange(snapshots_, {})) {
    GenerationPage page;
    page.generations.reserve(state_.live_count());
    for (const auto& [key, generation] : state_.table.all()) {
      if (generation->live()) page.generations.push_back(generation->Describe(state_.journal.now()));
    }
    state_.journal.Record(Reply{.ticket = ticket, .result = std::move(page)});
  }
}

GenerationInfo CommandProcessor::Describe(const Generation& generation) const {
  GenerationInfo info = generation.Describe(state_.journal.now());
  if (generation.live() && generation.computed_token_count == 0) {
    info.usage.cached_token_count =
        static_cast<int64_t>(state_.MatchPrefix(generation).size()) * state_.options.block_tokens;
  }
  return info;
}

void CommandProcessor::On(DrainCommand&) { state_.counters.draining = true; }

void CommandProcessor::On(AbortAllCommand& command) {
  // Finishing leaves the table as it is: what is finished is forgotten at the end of the boundary.
  for (const auto& [key, generation] : state_.table.all()) {
    if (!generation->live() || (command.keep_parked && IsOnDisk(*generation))) continue;
    life_cycle_.Finish(*generation, FinishReason::kAborted, Cause::kDrain, command.reason);
  }
}

void CommandProcessor::On(ParkAllCommand& command) {
  for (const auto& [key, generation] : state_.table.all()) {
    if (!generation->live()) continue;
    life_cycle_.HoldByControl(*generation, {.reason = command.reason});
    if (!IsOnDisk(*generation)) life_cycle_.SendTo(*generation, KvTier::kDisk);
  }
}

void CommandProcessor::On(KvMoveDone& command) { ladder_.OnDone(command); }

void CommandProcessor::On(RestoreCommand& command) {
  ParkedGeneration& parked = command.parked;
  if (state_.table.Find(parked.id) != nullptr) return;
  Generation& generation = state_.table.Insert(parked.id);
  if (!parked.session_id.empty()) {
    state_.sessions.Expect(parked.session_id, parked.session_ttl, state_.journal.now());
  }
  const ControlHold hold = {parked.pause_reason, {parked.lease, parked.on_lease_expiry}, parked.session_id};
  Unpark(std::move(parked), &generation);
  life_cycle_.Restore(generation, hold, command.block_count);
  TellAgain(generation, state_.decoder, state_.journal);
}

}  // namespace fermata
