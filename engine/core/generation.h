// The engine's own record of one generation.

#ifndef FERMATA_ENGINE_CORE_GENERATION_H_
#define FERMATA_ENGINE_CORE_GENERATION_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/core/generation_info.h"
#include "engine/core/generation_spec.h"
#include "engine/core/ids.h"
#include "engine/core/kv_move.h"
#include "engine/core/life_record.h"
#include "engine/core/model_runner.h"
#include "engine/core/order_key.h"
#include "engine/core/parked_generation.h"
#include "engine/core/prefix_cache.h"
#include "engine/core/text_assembler.h"
#include "engine/core/token_decoder.h"

namespace fermata {

// What a generation holds of the KV cache, on all tiers. Residency alone writes it.
struct HeldKv {
  // The farthest tier that holds any of it; while it moves: as it was before. kNone: there is none. On the device and
  // on the disk it is there whole; on the host its last blocks are, and the first may have stayed on the device.
  KvTier tier = KvTier::kNone;

  std::vector<BlockId>
      blocks;              // of the device: of what is computed, from its beginning, and of the tokens to come next
  int64_t kept_count = 0;  // while `tier` is the host: how many of them have stayed; all others are on the host

  // The prefix cache's nodes of the first of `blocks`: those are shared, the others its own.
  std::vector<PrefixCache::NodeId> shared;

  std::vector<BlockId> host_blocks;  // of the host's pool: of the last that have KV
  int64_t arriving_count = 0;        // how many of them, from the beginning, a move has yet to fill
  bool has_file = false;             // on disk; it may be older than the KV elsewhere
  int64_t file_block_count = 0;      // in it

  KvMoveId move = kNoMove;  // under way
  KvTier move_to = KvTier::kNone;

  bool moving() const { return move != kNoMove; }
  bool parked() const { return tier == KvTier::kHost || tier == KvTier::kDisk; }

  // All of it is on `place`, and stays there.
  bool rests_on(KvTier place) const { return tier == place && kept_count == 0 && !moving(); }
};

// Owned by GenerationTable, at a fixed address for as long as it is kept. Parts of the engine write to it as follows:
// LifeCycle everything about state, holds, order and timers; Residency the KV; StepResults what a step computed;
// CommandProcessor the readers. A finished one keeps what GetGeneration shows, and nothing else.
struct Generation {
  GenerationKey key{};
  GenerationId id;
  std::string body_digest;
  GenerationSpec spec;  // its prompt is moved to `context`
  absl::Time create_time = absl::InfinitePast();
  absl::Time deadline = absl::InfiniteFuture();  // create_time + spec.timeout

  LifeRecord life;
  PauseInfo pause;                                 // PAUSED exactly while one of its holds is set
  OrderKey order;                                  // never changes while the generation is in a GenerationQueue
  int32_t class_index = 0;                         // see EngineOptions::ClassIndex
  int32_t aged_levels = 0;                         // how much more urgent it is in `order` for having waited
  absl::Time aging_time = absl::InfiniteFuture();  // when it gains the next level
  int64_t reader_count = 0;
  int64_t revision = 0;  // of its last event

  std::vector<TokenId> context;      // prompt, then output, with what was appended between; empty once finished
  std::vector<TokenRange> appended;  // where in `context`, in order
  int32_t appended_token_count = 0;
  std::string append_id;  // of the last append; empty: it had none
  int32_t prompt_token_count = 0;
  int32_t output_token_count = 0;
  int32_t computed_token_count = 0;   // tokens of `context` whose KV is written, from its beginning
  int32_t prefilled_token_count = 0;  // how many of those are prompt or appended
  bool shares_more = true;            // its next full block may go into the prefix cache
  int32_t cached_token_count = 0;     // found there, and not computed
  int32_t told_cached_count = 0;      // how many of those have been reported

  // Where its KV was dropped: how far it had been computed before. Up to there it is computed again.
  int32_t recompute_end = 0;
  int32_t recomputed_token_count = 0;

  HeldKv kv;
  bool stalled = false;                // RUNNING, without the block for its next token: it keeps its slot and waits
  KvTier wanted_tier = KvTier::kNone;  // while it is PAUSED: where its KV is to go; kNone: wherever it is
  int64_t rest_tick = 0;               // of its last pause, for whose KV gives way first: the least

  // While it is held on stop: how it would have finished.
  FinishReason held_finish = FinishReason::kNone;

  std::optional<TextAssembler> text;  // from the first output token to the finish
  std::vector<int32_t> text_begins;   // output offsets at which it began anew, after a hold on stop

  GenerationState state() const { return life.state(); }
  bool live() const { return life.live(); }

  // Tokens that can be computed now. 1 when only the last sampled token's KV is missing.
  int32_t pending_token_count() const { return static_cast<int32_t>(context.size()) - computed_token_count; }

  // How far its context is prompt or appended, in the end: what is computed up to there is prefill.
  int32_t prefill_end() const { return appended.empty() ? prompt_token_count : appended.back().end; }

  // True if all of that is computed, and all that was once before, so that its next step is a decode of one token.
  bool decoding() const { return computed_token_count >= std::max(prefill_end(), recompute_end); }

  // How many of the positions from `begin` to before `end` are prompt or appended.
  int32_t GivenCount(int32_t begin, int32_t end) const;

  int64_t own_block_count() const { return static_cast<int64_t>(kv.blocks.size() - kv.shared.size()); }

  // The most tokens that it will ever hold KV for.
  int64_t token_limit() const { return int64_t{prompt_token_count} + appended_token_count + spec.sampling.max_tokens; }

  // A copy for the outside. Durations count up to `now`.
  GenerationInfo Describe(absl::Time now) const;

  // Blocks that it holds, by tier; while it moves: where it comes from.
  KvBlockCounts kv_block_counts() const;

  // All of it but the KV, for its file. Durations count up to `now`.
  ParkedGeneration Park(absl::Time now) const;
};

// Whether a token ends the output by itself: then its bytes are no text.
bool IsStopToken(const Generation& generation, const TokenDecoder& decoder, TokenId token);

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_GENERATION_H_
