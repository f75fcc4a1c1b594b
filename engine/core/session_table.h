// The sessions of orchestrators: who is alive, in which epoch, and which pauses are theirs.

#ifndef FERMATA_ENGINE_CORE_SESSION_TABLE_H_
#define FERMATA_ENGINE_CORE_SESSION_TABLE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/core/commands.h"
#include "engine/core/ids.h"

namespace fermata {

// One thread. A session lives until Close(); who closes those that have expired is the caller.
class SessionTable {
 public:
  static constexpr int kMaxSessions = 10000;

  // Epochs start at `first_epoch` and rise with every opening, whatever the session: none is given twice.
  explicit SessionTable(int64_t first_epoch) : next_epoch_(first_epoch) {}

  // Makes room for one that held pauses in another process and may come back within its ttl: then it is opened as if it
  // were not there. A known one: no change.
  void Expect(const std::string& session_id, absl::Duration ttl, absl::Time now);

  // See OpenSessionCommand.
  absl::StatusOr<SessionInfo> Open(const OpenSessionCommand& command, absl::Time now);

  // OK for an operator, and for a live session in its present epoch; else FAILED_PRECONDITION that says which.
  absl::Status Check(const Caller& caller) const;

  // Starts the ttl afresh. REQUIRES for this and the next: Check() is OK, and the caller is a session.
  SessionInfo KeepAlive(const Caller& caller, absl::Time now);
  SessionInfo Describe(const Caller& caller) const;

  // Ends a live session and returns what it held, in order of arrival; whose holds these are still stands in the
  // generations.
  std::vector<GenerationKey> Close(const std::string& session_id);

  // The live session that expires first, and when; InfiniteFuture if there is none.
  absl::Time next_expiry() const;
  const std::string& first_to_expire() const { return by_expiry_.begin()->second; }

  // A pause of a live session. REQUIRES to add: it is live. To remove from one that was closed meanwhile: no change.
  void AddHold(const std::string& session_id, GenerationKey key);
  void RemoveHold(const std::string& session_id, GenerationKey key);

  // REQUIRES: it is live.
  absl::Duration ttl(const std::string& session_id) const { return sessions_.at(session_id).info.ttl; }

  bool Holds(const std::string& session_id, GenerationKey key) const;
  int64_t hold_count() const { return hold_count_; }

 private:
  struct Session {
    SessionInfo info;
    absl::Time expire_time;
    absl::btree_set<GenerationKey> held;
    bool expected = false;  // nobody has opened it in this process yet
  };

  void SetExpiry(Session& session, absl::Time time);

  int64_t next_epoch_;
  int64_t hold_count_ = 0;
  absl::flat_hash_map<std::string, Session> sessions_;
  absl::btree_set<std::pair<absl::Time, std::string>> by_expiry_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_SESSION_TABLE_H_
