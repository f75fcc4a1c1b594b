#include "tests/sim/expected_world.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/algorithm/container.h"

namespace fermata {
namespace {

using State = GenerationState;

// A pause belongs to its session; an operator may do anything.
bool IsAnothers(const ExpectedGeneration& generation, const Caller& caller) {
  return !generation.pause.session_id.empty() && !caller.session_id.empty() &&
         generation.pause.session_id != caller.session_id;
}

void DropControlHold(PauseInfo& pause) {
  pause = {.by_disconnect = pause.by_disconnect, .disconnect_expire_time = pause.disconnect_expire_time};
}

}  // namespace

void ExpectedWorld::Begin(absl::Time now) {
  now_ = now;
  events_.clear();
  turns_.clear();
}

ExpectedGeneration* ExpectedWorld::Find(const GenerationId& id) {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &by_key_.at(it->second);
}

std::vector<GenerationId> ExpectedWorld::Select(const Selector& selector) const {
  std::vector<GenerationId> ids;
  for (const auto& [key, generation] : by_key_) {
    if (!selector.tenant.empty() && generation.spec.tenant != selector.tenant) continue;
    if (!selector.traffic_class.empty() && generation.spec.traffic_class != selector.traffic_class) continue;
    const bool any = selector.states.empty() && generation.state != State::kFinished;
    if (any || absl::c_linear_search(selector.states, generation.state)) ids.push_back(generation.id);
  }
  return ids;
}

template <typename Command, typename Verb>
void ExpectedWorld::ForEach(const Command& command, std::vector<ExpectedResult>& results, Verb verb) {
  for (const GenerationId& id : command.selector.has_value() ? Select(*command.selector) : command.ids) {
    ForOne(id, results, verb);
  }
}

// `verb` returns the code that it must have.
template <typename Verb>
void ExpectedWorld::ForOne(const GenerationId& id, std::vector<ExpectedResult>& results, Verb verb) {
  ExpectedGeneration* generation = Find(id);
  ExpectedResult result = {.id = id};
  result.code = generation == nullptr ? absl::StatusCode::kNotFound : verb(*generation);
  if (result.code == absl::StatusCode::kOk) result.generation = *generation;
  results.push_back(std::move(result));
}

void ExpectedWorld::Do(const EnqueueCommand& command, std::vector<ExpectedResult>& results) {
  ExpectedResult result = {.id = command.id};
  ExpectedGeneration* generation = Find(command.id);
  if (generation == nullptr) {
    result.code = CodeOfNew(command);
    result.created = result.code == absl::StatusCode::kOk;
    if (result.created) generation = &Create(command);
  } else if (generation->digest != command.body_digest) {
    result.code = absl::StatusCode::kAlreadyExists;
  }
  if (result.code == absl::StatusCode::kOk) {
    if (command.attach_reader) AddReader(*generation);
    result.generation = *generation;
  }
  results.push_back(std::move(result));
}

const TrafficClass* ExpectedWorld::FindClass(const std::string& name) const {
  for (const TrafficClass& one : options_.classes) {
    if (one.name == name) return &one;
  }
  return nullptr;
}

bool ExpectedWorld::Fits(int64_t tokens, const std::string& traffic_class) const {
  const int64_t blocks = (tokens + options_.block_tokens - 1) / options_.block_tokens;
  const TrafficClass* own = FindClass(traffic_class);
  return tokens <= options_.context_tokens && blocks <= options_.block_count &&
         (own == nullptr || blocks <= own->max_kv_blocks);
}

absl::StatusCode ExpectedWorld::CodeOfNew(const EnqueueCommand& command) const {
  if (draining_) return absl::StatusCode::kUnavailable;
  const int64_t tokens = static_cast<int64_t>(command.spec.prompt.size()) + command.spec.sampling.max_tokens;
  if (!Fits(tokens, command.spec.traffic_class)) return absl::StatusCode::kInvalidArgument;
  const int64_t live = static_cast<int64_t>(by_key_.size()) - CountIn(State::kFinished);
  const bool queue_is_full = CountIn(State::kQueued) >= options_.max_queued;
  if (live >= options_.max_live || (!command.hold && queue_is_full)) return absl::StatusCode::kResourceExhausted;
  const int64_t queued = absl::c_count_if(by_key_, [&](const auto& entry) {
    return entry.second.state == State::kQueued && entry.second.spec.traffic_class == command.spec.traffic_class;
  });
  const TrafficClass* own = FindClass(command.spec.traffic_class);
  if (own != nullptr && !command.hold && queued >= own->max_queued) return absl::StatusCode::kResourceExhausted;
  return absl::StatusCode::kOk;
}

ExpectedGeneration& ExpectedWorld::Create(const EnqueueCommand& command) {
  const GenerationKey key{next_key_++};
  by_id_[command.id] = key;
  ExpectedGeneration& generation = by_key_[key];
  generation.key = key;
  generation.id = command.id;
  generation.digest = command.body_digest;
  generation.spec = command.spec;
  generation.create_time = now_;
  if (command.hold) {
    generation.pause = {.by_control = true,
                        .session_id = command.caller.session_id,
                        .lease_expire_time = now_ + command.lease.duration,
                        .on_lease_expiry = command.lease.on_expiry};
  }
  Move(generation, command.hold ? State::kPaused : State::kQueued, Cause::kEnqueue);
  return generation;
}

void ExpectedWorld::Do(const PreemptCommand& command, std::vector<ExpectedResult>& results) {
  const bool no_tier = (command.tier == KvTier::kHost && options_.host_block_count == 0) ||
                       (command.tier == KvTier::kDisk && options_.disk_block_count == 0);
  ForEach(command, results, [&](ExpectedGeneration& generation) {
    PauseInfo& pause = generation.pause;
    if (!IsLive(generation.state) || no_tier || IsAnothers(generation, command.caller)) {
      return absl::StatusCode::kFailedPrecondition;
    }
    const bool is_new = !pause.by_control;
    const bool owns = is_new || command.caller.session_id.empty() || command.caller.session_id == pause.session_id;
    if (is_new) {
      pause.by_control = true;
      pause.reason = command.reason;
      pause.session_id = command.caller.session_id;
    }
    if (is_new || (owns && command.lease.duration != absl::InfiniteDuration())) {
      pause.lease_expire_time = now_ + command.lease.duration;
      pause.on_lease_expiry = command.lease.on_expiry;
    }
    if (generation.state != State::kPaused) Move(generation, State::kPaused, Cause::kPreempt);
    return absl::StatusCode::kOk;
  });
}

void ExpectedWorld::Do(const ContinueCommand& command, std::vector<ExpectedResult>& results) {
  ForEach(command, results, [&](ExpectedGeneration& generation) {
    if (!command.append_id.empty() && command.append_id == generation.append_id) return absl::StatusCode::kOk;
    if (!IsLive(generation.state) || IsAnothers(generation, command.caller)) {
      return absl::StatusCode::kFailedPrecondition;
    }
    const bool with_more = !command.append.empty() || command.max_tokens.has_value();
    if (generation.state != State::kPaused) {
      return with_more ? absl::StatusCode::kFailedPrecondition : absl::StatusCode::kOk;
    }
    const int32_t max_tokens = command.max_tokens.value_or(generation.spec.sampling.max_tokens);
    const int64_t tokens = static_cast<int64_t>(generation.spec.prompt.size() + command.append.size()) +
                           generation.appended_token_count + max_tokens;
    if (max_tokens <= generation.output_token_count || !Fits(tokens, generation.spec.traffic_class)) {
      return absl::StatusCode::kInvalidArgument;
    }
    if (with_more || generation.held_finish != FinishReason::kNone) {
      turns_.push_back({generation.key, {generation.output_token_count, command.append, max_tokens}});
    }
    generation.spec.sampling.max_tokens = max_tokens;
    generation.appended_token_count += static_cast<int64_t>(command.append.size());
    if (!command.append.empty()) generation.append_id = command.append_id;
    generation.held_finish = FinishReason::kNone;
    generation.pause = PauseInfo();
    Resume(generation, Cause::kContinue);
    return absl::StatusCode::kOk;
  });
}

void ExpectedWorld::Do(const AbortCommand& command, std::vector<ExpectedResult>& results) {
  ForEach(command, results, [&](ExpectedGeneration& generation) {
    if (!IsLive(generation.state)) return absl::StatusCode::kOk;
    if (IsAnothers(generation, command.caller)) return absl::StatusCode::kFailedPrecondition;
    Move(generation, State::kFinished, Cause::kAbort);
    return absl::StatusCode::kOk;
  });
}

void ExpectedWorld::Do(const SetPriorityCommand& command, std::vector<ExpectedResult>& results) {
  ForEach(command, results, [&](ExpectedGeneration& generation) {
    if (!IsLive(generation.state)) return absl::StatusCode::kFailedPrecondition;
    if (generation.spec.priority != command.priority) {
      generation.spec.priority = command.priority;
      events_.push_back({.key = generation.key, .priority = command.priority});
    }
    return absl::StatusCode::kOk;
  });
}

void ExpectedWorld::Do(const AttachCommand& command, std::vector<ExpectedResult>& results) {
  ForOne(command.id, results, [&](ExpectedGeneration& generation) {
    if (command.offset < 0 || command.offset > generation.output_token_count) return absl::StatusCode::kOutOfRange;
    AddReader(generation);
    return absl::StatusCode::kOk;
  });
}

void ExpectedWorld::Do(const GetGenerationCommand& command, std::vector<ExpectedResult>& results) {
  ForOne(command.id, results, [](ExpectedGeneration&) { return absl::StatusCode::kOk; });
}

absl::StatusCode ExpectedWorld::CodeOf(const Caller& caller) const {
  if (caller.session_id.empty()) return absl::StatusCode::kOk;
  const auto it = sessions_.find(caller.session_id);
  const bool good = it != sessions_.end() && it->second.epoch == caller.epoch;
  return good ? absl::StatusCode::kOk : absl::StatusCode::kFailedPrecondition;
}

std::optional<SessionInfo> ExpectedWorld::Open(const OpenSessionCommand& command) {
  if (sessions_.contains(command.session_id) && !command.takeover) return std::nullopt;
  sessions_[command.session_id] = {next_epoch_, command.ttl, now_ + command.ttl};
  return SessionInfo{command.session_id, next_epoch_++, command.ttl};
}

SessionInfo ExpectedWorld::KeepAlive(const std::string& session_id) {
  ExpectedSession& session = sessions_.at(session_id);
  session.expire_time = now_ + session.ttl;
  return {session_id, session.epoch, session.ttl};
}

SessionInfo ExpectedWorld::Close(const std::string& session_id) {
  const ExpectedSession session = sessions_.at(session_id);
  sessions_.erase(session_id);
  for (auto& [key, generation] : by_key_) {
    if (generation.pause.session_id == session_id) EndControlHold(generation, Cause::kSession);
  }
  return {session_id, session.epoch, session.ttl};
}

void ExpectedWorld::AddReader(ExpectedGeneration& generation) {
  ++generation.reader_count;
  if (!generation.pause.by_disconnect) return;
  generation.pause.by_disconnect = false;
  generation.pause.disconnect_expire_time = absl::InfiniteFuture();
  if (!generation.pause.by_control) Resume(generation, Cause::kAttach);
}

void ExpectedWorld::Detach(GenerationKey key) {
  const auto it = by_key_.find(key);
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
      generation.pause.disconnect_expire_time = now_ + options_.disconnect_lease;
      if (generation.state != State::kPaused) Move(generation, State::kPaused, Cause::kDisconnect);
      break;
    case OnDisconnect::kContinue:
      break;
  }
}

void ExpectedWorld::AbortAll() {
  for (auto& [key, generation] : by_key_) {
    if (IsLive(generation.state)) Move(generation, State::kFinished, Cause::kDrain);
  }
}

void ExpectedWorld::Resume(ExpectedGeneration& generation, Cause cause) {
  Move(generation, generation.has_kv ? State::kPreempted : State::kQueued, cause);
}

void ExpectedWorld::EndControlHold(ExpectedGeneration& generation, Cause cause) {
  if (generation.pause.on_lease_expiry == OnLeaseExpiry::kAbort) return Move(generation, State::kFinished, cause);
  // Held on stop, and nobody has given it more.
  if (generation.held_finish != FinishReason::kNone) return Move(generation, State::kFinished, cause);
  DropControlHold(generation.pause);
  if (!generation.pause.by_disconnect) Resume(generation, cause);
}

void ExpectedWorld::Move(ExpectedGeneration& generation, State to, Cause cause) {
  events_.push_back({generation.key, std::nullopt, generation.state, to, cause});
  generation.state = to;
  if (to == State::kFinished) NoteFinish(generation);
}

void ExpectedWorld::NoteFinish(ExpectedGeneration& generation) {
  generation.finish_time = now_;
  generation.pause = PauseInfo();
  finished_.push_back(generation.key);
}

// What is due, in the order in which it is: by time; of one instant generations before sessions, by arrival; of one
// generation its timeout, its lease, its reader's.
struct ExpectedWorld::Due {
  absl::Time time;
  bool is_session = false;
  GenerationKey key{};
  int kind = 0;
  Cause cause = Cause::kTimeout;
  std::string session_id;

  friend bool operator<(const Due& a, const Due& b) {
    return std::tie(a.time, a.is_session, a.key, a.kind, a.session_id) <
           std::tie(b.time, b.is_session, b.key, b.kind, b.session_id);
  }
};

std::optional<ExpectedWorld::Due> ExpectedWorld::NextDue() const {
  std::vector<Due> due;
  for (const auto& [key, generation] : by_key_) {
    if (!IsLive(generation.state)) continue;
    due.push_back({generation.create_time + generation.spec.timeout, false, key, 0, Cause::kTimeout, ""});
    due.push_back({generation.pause.lease_expire_time, false, key, 1, Cause::kLease, ""});
    due.push_back({generation.pause.disconnect_expire_time, false, key, 2, Cause::kDisconnect, ""});
  }
  for (const auto& [id, session] : sessions_) {
    due.push_back({session.expire_time, true, GenerationKey{}, 0, Cause::kSession, id});
  }
  const auto first = std::min_element(due.begin(), due.end());
  if (first == due.end() || first->time > now_) return std::nullopt;
  return *first;
}

void ExpectedWorld::FireTimers() {
  while (const std::optional<Due> due = NextDue()) {
    if (due->is_session) {
      Close(due->session_id);
    } else if (due->cause == Cause::kLease) {
      EndControlHold(by_key_.at(due->key), Cause::kLease);
    } else {
      Move(by_key_.at(due->key), State::kFinished, due->cause);
    }
  }
}

void ExpectedWorld::SetState(GenerationKey key, State state, Cause cause, absl::Time now) {
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return;
  now_ = now;
  ExpectedGeneration& generation = it->second;
  generation.state = state;
  if (state == State::kFinished) NoteFinish(generation);
  if (state == State::kPaused) {
    generation.held_finish = cause == Cause::kStop ? FinishReason::kStop : FinishReason::kLength;
    generation.pause = {.by_control = true, .reason = cause == Cause::kStop ? "stop" : "length"};
  }
}

void ExpectedWorld::Displace(GenerationKey key) {
  const auto it = by_key_.find(key);
  if (it != by_key_.end() && it->second.state == State::kRunning)
    Move(it->second, State::kPreempted, Cause::kScheduler);
}

void ExpectedWorld::LoseKv(GenerationKey key) {
  const auto it = by_key_.find(key);
  if (it != by_key_.end() && IsLive(it->second.state)) Move(it->second, State::kFinished, Cause::kError);
}

void ExpectedWorld::EndStandstill(GenerationKey key) {
  const auto it = by_key_.find(key);
  const bool may = it != by_key_.end() && !options_.allow_recompute &&
                   (it->second.state == State::kPreempted || it->second.state == State::kRunning);
  if (may) Move(it->second, State::kFinished, Cause::kError);
}

void ExpectedWorld::SetComputed(GenerationKey key, int64_t output_token_count, bool has_kv) {
  const auto it = by_key_.find(key);
  if (it == by_key_.end()) return;
  std::tie(it->second.output_token_count, it->second.has_kv) = std::tie(output_token_count, has_kv);
}

std::vector<GenerationKey> ExpectedWorld::Forget(absl::Time now) {
  std::vector<GenerationKey> forgotten;
  const auto is_due = [&] {
    return static_cast<int64_t>(finished_.size()) > options_.max_finished ||
           by_key_.at(finished_.front()).finish_time + options_.finished_age <= now;
  };
  while (!finished_.empty() && is_due()) {
    const GenerationKey key = finished_.front();
    finished_.pop_front();
    by_id_.erase(by_key_.at(key).id);
    by_key_.erase(key);
    forgotten.push_back(key);
  }
  return forgotten;
}

}  // namespace fermata
