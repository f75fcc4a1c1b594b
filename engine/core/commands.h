// What the outside may ask of the engine, and what it answers. Commands take effect between two steps, in their order;
// each that has a ticket is answered by exactly one Reply, after it took effect.

#ifndef FERMATA_ENGINE_CORE_COMMANDS_H_
#define FERMATA_ENGINE_CORE_COMMANDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/core/generation_info.h"
#include "engine/core/generation_spec.h"
#include "engine/core/generation_state.h"
#include "engine/core/ids.h"
#include "engine/core/kv_move.h"
#include "engine/core/parked_generation.h"

namespace fermata {

// Pairs a Reply with its command. Chosen by the caller; the engine only hands it back.
enum class Ticket : int64_t {};

// For whom a verb is done. A session's pauses are its own: no other live session may touch them; an operator may.
struct Caller {
  std::string session_id;  // empty: an operator's
  int64_t epoch = 0;       // as OpenSession gave it
};

// Chooses live generations by what they are when the verb takes effect, in order of arrival. What is set must match.
struct Selector {
  std::string tenant;
  std::string traffic_class;
  std::vector<GenerationState> states;  // any of them; empty: any but FINISHED
};

// How long a hold lasts by itself, and what then.
struct Lease {
  absl::Duration duration = absl::InfiniteDuration();
  OnLeaseExpiry on_expiry = OnLeaseExpiry::kContinue;  // also when its session ends
};

// The verbs answer with an error for the whole Reply, and nothing has changed: FAILED_PRECONDITION if the caller's
// session is not known (any more) or its epoch is not the present one, or if more than kMaxSelected are meant.
inline constexpr int kMaxSelected = 10000;

// Creates a generation, QUEUED or (with `hold`) PAUSED. A known id with the same `body_digest` returns that generation
// as it is now; with another digest: ALREADY_EXISTS. RESOURCE_EXHAUSTED naming the limit if max_queued or max_live is
// reached (with `hold`, max_live alone: it does not wait in the queue), UNAVAILABLE while draining, INVALID_ARGUMENT if
// prompt + max_tokens exceeds the context or the whole pool.
struct EnqueueCommand {
  Ticket ticket{};
  GenerationId id;
  GenerationSpec spec;
  std::string body_digest;  // of the request as it was sent: equal digests mean equal bodies
  bool hold = false;
  bool attach_reader = false;  // Generate: also counts one reader, on a known id too (see AttachCommand, offset 0)
  Lease lease = {};            // of the hold, as is the next
  Caller caller = {};
};

// Holds generations until Continue. On a paused one: stays paused and stays its owner's (a pause by disconnect becomes
// one by control too); a lease that is not infinite is set anew, if the caller is an operator or the owner.
// With a `tier` the KV goes there as soon as there is room: Generation's kv_blocks and a KvMoved say when it has.
// FAILED_PRECONDITION, and nothing has changed, for a tier that is not configured.
struct PreemptCommand {
  Ticket ticket{};
  std::vector<GenerationId> ids;
  std::string reason;
  KvTier tier = KvTier::kNone;  // kNone: it stays where it is, until somebody else needs the room
  Lease lease = {};
  std::optional<Selector> selector = std::nullopt;  // instead of ids; below likewise
  Caller caller = {};
};

// Ends every hold: the generation is schedulable again at its own place. On a live one that is not paused: no change.
// With `append` or `max_tokens`: of one id, in PAUSED alone; the same append_id as the last one of this generation
// again: no change, OK. INVALID_ARGUMENT if the output tokens so far leave no room below max_tokens, or if all together
// exceeds the context or the whole pool.
struct ContinueCommand {
  Ticket ticket{};
  std::vector<GenerationId> ids;
  std::optional<Selector> selector = std::nullopt;
  Caller caller = {};
  std::vector<TokenId> append = {};                  // after what is in the context; empty: nothing
  std::vector<TokenId> turn_end = {};                // before that, unless the last token of the context ends a turn
  std::string append_id = {};                        // empty: none
  std::optional<int32_t> max_tokens = std::nullopt;  // the new total of output tokens

  bool with_more() const { return !append.empty() || max_tokens.has_value(); }
};

// Finishes generations with ABORTED. On a finished one: no change.
struct AbortCommand {
  Ticket ticket{};
  std::vector<GenerationId> ids;
  std::string reason;
  std::optional<Selector> selector = std::nullopt;
  Caller caller = {};
};

struct SetPriorityCommand {
  Ticket ticket{};
  std::vector<GenerationId> ids;
  int32_t priority = 0;
  std::optional<Selector> selector = std::nullopt;
  Caller caller = {};
};

// One verb of an Apply. Its own ticket is not looked at, and its caller is that of the Apply.
using Operation = std::variant<EnqueueCommand, PreemptCommand, ContinueCommand, AbortCommand, SetPriorityCommand>;

// Several verbs at one boundary, judged in their order, each on the outcome of those before. Results stand one
// operation after the other. With `atomic`, if one of them would fail nothing is done: that one has its error, all
// others ABORTED.
struct ApplyCommand {
  Ticket ticket{};
  std::vector<Operation> operations;
  bool atomic = false;
  Caller caller = {};
};

// A session is a life sign of an orchestrator: when it ends, so do the pauses made in it, as each of them asked.
// Answered by a SessionInfo. ALREADY_EXISTS for a live one without `takeover`, which raises its epoch and leaves its
// pauses as they are; RESOURCE_EXHAUSTED for too many.
struct OpenSessionCommand {
  Ticket ticket{};
  std::string session_id;
  absl::Duration ttl;
  bool takeover = false;
};

// Starts the ttl afresh. FAILED_PRECONDITION as for verbs; likewise for the next.
struct KeepSessionAliveCommand {
  Ticket ticket{};
  Caller caller;
};

struct CloseSessionCommand {
  Ticket ticket{};
  Caller caller;
};

// Counts one reader more, and ends a pause by disconnect. NOT_FOUND for an unknown id, OUT_OF_RANGE if `offset` is
// beyond the tokens so far; then no reader is counted.
struct AttachCommand {
  Ticket ticket{};
  GenerationId id;
  int64_t offset = 0;
};

// One reader has left. When it was the last of a live generation, its spec's on_disconnect applies. Has no reply; an
// unknown key or one without readers is ignored. Sent once for every reader that Enqueue or Attach counted, also after
// the finish.
struct DetachCommand {
  GenerationKey key{};
};

struct GetGenerationCommand {
  Ticket ticket{};
  GenerationId id;
};

// Generations in order of arrival, those with a key above `after`. Empty filters match all. At most `page_size`
// results, and at most kMaxScanned looked at: a page may be short, or empty, with more to come.
struct ListGenerationsCommand {
  static constexpr int kMaxScanned = 10000;

  Ticket ticket{};
  std::vector<GenerationState> states;
  std::string tenant;
  std::string traffic_class;
  GenerationKey after{-1};
  int32_t page_size = 100;
};

struct GetEngineCommand {
  Ticket ticket{};
};

// All live generations, in order of arrival, as they are at the end of this boundary: at the revision of the Reply.
// O(live).
struct SnapshotCommand {
  Ticket ticket{};
};

// From now on Enqueue of a new id is refused with UNAVAILABLE. What is queued or running goes on. Has no reply.
struct DrainCommand {};

// Finishes everything that lives with ABORTED and this reason: the end of a drain. Has no reply.
struct AbortAllCommand {
  std::string reason;
  bool keep_parked = false;  // but for what is paused on the disk tier, which another process can go on with
};

// A move of the Report is over. Not OK: nothing was written that counts, and what was read is as it was. Has no reply.
struct KvMoveDone {
  KvMoveId id = kNoMove;
  absl::Status status;
};

// A generation that was found in a file becomes PAUSED under its id, with `block_count` blocks of KV there. Ignored if
// the id is taken. Its output is told again, for those who attach; logprobs are not. Has no reply.
struct RestoreCommand {
  ParkedGeneration parked;
  int64_t block_count = 0;
};

// Pauses everything that lives, and sends all KV to the disk: the end of a drain, before AbortAll. Has no reply.
struct ParkAllCommand {
  std::string reason;
};

using Command =
    std::variant<EnqueueCommand, PreemptCommand, ContinueCommand, AbortCommand, SetPriorityCommand, ApplyCommand,
                 OpenSessionCommand, KeepSessionAliveCommand, CloseSessionCommand, AttachCommand, DetachCommand,
                 GetGenerationCommand, ListGenerationsCommand, GetEngineCommand, SnapshotCommand, DrainCommand,
                 AbortAllCommand, KvMoveDone, RestoreCommand, ParkAllCommand>;

// The outcome for one id: the generation as it now is, or an error.
struct OperationResult {
  GenerationId id;
  absl::Status status;
  std::optional<GenerationInfo> generation;  // set if status is OK
  bool created = false;                      // Enqueue: this command made it
};

struct GenerationPage {
  std::vector<GenerationInfo> generations;
  std::optional<GenerationKey> next_after;  // for the next page; unset: this was the last
};

struct SessionInfo {
  std::string session_id;
  int64_t epoch = 0;
  absl::Duration ttl;
};

// The blocks of one tier, by use; the uses add up to block_count.
struct KvPoolInfo {
  int64_t block_count = 0;
  int64_t free_count = 0;
  int64_t cached_count = 0;   // held by the prefix cache alone; given up when somebody needs the room
  int64_t running_count = 0;  // held by RUNNING; the others likewise
  int64_t preempted_count = 0;
  int64_t paused_count = 0;
  int64_t moving_count = 0;  // of generations that have ended: free when the copy under way is done
};

// The engine's counters; kept up to date as things happen, never counted up on demand.
struct EngineInfo {
  int64_t count_by_state[kGenerationStateCount] = {};  // indexed by GenerationState; kNone is 0
  int64_t finished_total = 0;                          // ever, those no longer kept included
  KvPoolInfo device;
  KvPoolInfo host;  // block_count is 0 for a tier that is not configured
  KvPoolInfo disk;  // a file counts for its generation's state, wherever the KV is now
  int64_t kv_move_total[kKvTierCount][kKvTierCount] = {};  // moves done, [from][to], by KvTier
  int64_t kv_move_failed_total = 0;
  int64_t prefilled_token_total = 0;
  int64_t recomputed_token_total = 0;
  int64_t output_token_total = 0;
  int64_t preemption_total = 0;
  int64_t pause_total = 0;
  int64_t step = 0;
  int64_t revision = 0;
  bool draining = false;
};

struct Reply {
  Ticket ticket{};
  int64_t step = 0;      // last completed step when the command took effect
  int64_t revision = 0;  // of the report that carries this reply
  // Verbs: one result for each id, in the order asked (Enqueue, Attach, Get: one). Others: what they asked for.
  std::variant<std::vector<OperationResult>, GenerationPage, EngineInfo, SessionInfo> result;
  absl::Status status = absl::OkStatus();  // not OK: of the command as a whole; there is no result
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_COMMANDS_H_
