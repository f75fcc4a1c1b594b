// What the engine tells the outside: everything that happened at a boundary or in a step, in order.

#ifndef FERMATA_ENGINE_CORE_REPORT_H_
#define FERMATA_ENGINE_CORE_REPORT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/core/commands.h"
#include "engine/core/generation_info.h"
#include "engine/core/generation_state.h"
#include "engine/core/ids.h"
#include "engine/core/model_runner.h"

namespace fermata {

// Who or what moved a generation from one state to another.
enum class Cause {
  kEnqueue,
  kScheduler,   // admitted or displaced
  kPreempt,     // the verb
  kContinue,    // the verb
  kAbort,       // the verb
  kDisconnect,  // the last reader left, or did not come back in time
  kAttach,      // a reader came back
  kLease,       // of a pause, which has ended
  kSession,     // of a pause, which has ended
  kStop,        // the model's own end: stop token, stop string, end of generation
  kLength,
  kTimeout,
  kError,
  kDrain,
  kRestore,  // found on disk at start
};

// "enqueue", "scheduler" and so on.
absl::string_view Name(Cause cause);

// The first event of a generation has from = kNone. With to = kFinished, no other event of this generation follows.
struct StateChanged {
  GenerationKey key{};
  GenerationState from = GenerationState::kNone;
  GenerationState to = GenerationState::kNone;
  Cause cause = Cause::kEnqueue;
  // The generation right after the change. Set for the first event, for kPaused and for kFinished; others are frequent.
  // Not in place: it would make every event six times as large, and a step has two for each generation that runs.
  std::shared_ptr<const GenerationInfo> info;
};

// An output token, with the text it released. Text lags behind tokens while a UTF-8 character or a possible stop string
// is incomplete; what is still held when the generation finishes is in the last token's text if that token finished it,
// else in a TextReleased event before the finish. All text of a generation, put together, is valid UTF-8 (bytes that
// are not become U+FFFD), and is the same however often it is replayed.
struct TokenSampled {
  GenerationKey key{};
  int64_t offset = 0;  // 0-based among the output tokens
  TokenId token{};
  std::string text;
  std::optional<TokenLogprobs> logprobs;
};

struct TextReleased {
  GenerationKey key{};
  std::string text;
};

// Tokens computed for a generation in this step. At a boundary there are none: it has given blocks back.
struct Progress {
  GenerationKey key{};
  int32_t prefilled_token_count = 0;
  int32_t output_token_count = 0;
  int32_t recomputed_token_count = 0;
  int32_t cached_token_count = 0;  // of its prompt, served from the prefix cache
  KvBlockCounts kv_blocks = {};    // held after the step
};

struct PriorityChanged {
  GenerationKey key{};
  int32_t priority = 0;
};

// KV is on another tier now, complete; on disk: synced. Or it could not be brought there, and is where it was. To
// kNone: it was dropped, and is computed again when its generation runs.
struct KvMoved {
  GenerationKey key{};
  KvTier from = KvTier::kNone;
  KvTier to = KvTier::kNone;
  int64_t block_count = 0;  // that hold KV
  KvBlockCounts kv_blocks;  // held after it
  std::string error;        // empty: it is there
};

using Event = std::variant<StateChanged, TokenSampled, TextReleased, Progress, PriorityChanged, KvMoved>;

// `step` is the last completed step: the one just done, for the report of a step. Revisions rise by one with every
// report that has events; one without repeats the last.
struct Report {
  int64_t step = 0;
  int64_t revision = 0;
  std::vector<Event> events;
  std::vector<Reply> replies;

  // Finished generations that are no longer kept: from now on their ids are free and their keys unknown. Whoever keeps
  // something under their keys (a log of tokens, say) may drop it. No event, so no revision.
  std::vector<GenerationKey> forgotten;

  // What whoever runs the engine has to do with KV: to copy, and to answer with a KvMoveDone each; to give up, if it is
  // not done yet; and to remove the files of generations, after every move of reports before this, and before any of
  // this one, whose file may have the same name.
  std::vector<KvMove> moves;
  std::vector<KvMoveId> cancelled_moves;
  std::vector<GenerationId> discarded_files;

  // Nothing for those who watch.
  bool empty() const { return events.empty() && replies.empty() && forgotten.empty(); }
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_REPORT_H_
