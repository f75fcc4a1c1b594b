#include "engine/core/session_table.h"

#include "absl/strings/str_cat.h"
#include "engine/core/check.h"

namespace fermata {

void SessionTable::Expect(const std::string& session_id, absl::Duration ttl, absl::Time now) {
  if (sessions_.contains(session_id)) return;
  Session& session = sessions_[session_id];
  session.info = {session_id, next_epoch_++, ttl};
  session.expected = true;
  SetExpiry(session, now + ttl);
}

absl::StatusOr<SessionInfo> SessionTable::Open(const OpenSessionCommand& command, absl::Time now) {
  const auto it = sessions_.find(command.session_id);
  if (it != sessions_.end() && !command.takeover && !it->second.expected) {
    return absl::AlreadyExistsError(
        absl::StrCat("session \"", command.session_id, "\" is live: wait for its end, or ask for takeover"));
  }
  if (it == sessions_.end() && sessions_.size() >= kMaxSessions) {
    return absl::ResourceExhaustedError(absl::StrCat("session \"", command.session_id, "\" is refused: ", kMaxSessions,
                                                     " sessions are live, and no more are allowed"));
  }
  Session& session = sessions_[command.session_id];
  session.info = {command.session_id, next_epoch_++, command.ttl};
  session.expected = false;
  SetExpiry(session, now + command.ttl);
  return session.info;
}

absl::Status SessionTable::Check(const Caller& caller) const {
  if (caller.session_id.empty()) return absl::OkStatus();
  const auto it = sessions_.find(caller.session_id);
  if (it == sessions_.end()) {
    return absl::FailedPreconditionError(
        absl::StrCat("session \"", caller.session_id, "\" is not known, or has ended: open it again"));
  }
  const int64_t present = it->second.info.epoch;
  if (caller.epoch != present) {
    return absl::FailedPreconditionError(absl::StrCat("session \"", caller.session_id, "\": epoch ", caller.epoch,
                                                      " is not the present one, ", present,
                                                      (caller.epoch < present ? ": another has taken over" : "")));
  }
  return absl::OkStatus();
}

SessionInfo SessionTable::KeepAlive(const Caller& caller, absl::Time now) {
  Session& session = sessions_.at(caller.session_id);
  SetExpiry(session, now + session.info.ttl);
  return session.info;
}

SessionInfo SessionTable::Describe(const Caller& caller) const { return sessions_.at(caller.session_id).info; }

std::vector<GenerationKey> SessionTable::Close(const std::string& session_id) {
  const auto it = sessions_.find(session_id);
  FERMATA_CHECK(it != sessions_.end());
  const Session& session = it->second;
  by_expiry_.erase({session.expire_time, session_id});
  hold_count_ -= static_cast<int64_t>(session.held.size());
  std::vector<GenerationKey> held(session.held.begin(), session.held.end());
  sessions_.erase(it);
  return held;
}

absl::Time SessionTable::next_expiry() const {
  return by_expiry_.empty() ? absl::InfiniteFuture() : by_expiry_.begin()->first;
}

void SessionTable::AddHold(const std::string& session_id, GenerationKey key) {
  hold_count_ += sessions_.at(session_id).held.insert(key).second;
}

void SessionTable::RemoveHold(const std::string& session_id, GenerationKey key) {
  const auto it = sessions_.find(session_id);
  if (it != sessions_.end()) hold_count_ -= static_cast<int64_t>(it->second.held.erase(key));
}

bool SessionTable::Holds(const std::string& session_id, GenerationKey key) const {
  const auto it = sessions_.find(session_id);
  return it != sessions_.end() && it->second.held.contains(key);
}

void SessionTable::SetExpiry(Session& session, absl::Time time) {
  by_expiry_.erase({session.expire_time, session.info.session_id});
  session.expire_time = time;
  by_expiry_.insert({time, session.info.session_id});
}

}  // namespace fermata
