// All that the engine owns, in one place: the parts of the engine that act on it borrow this.

#ifndef FERMATA_ENGINE_CORE_ENGINE_STATE_H_
#define FERMATA_ENGINE_CORE_ENGINE_STATE_H_

#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/core/block_pool.h"
#include "engine/core/commands.h"
#include "engine/core/engine_options.h"
#include "engine/core/generation_queue.h"
#include "engine/core/generation_state.h"
#include "engine/core/generation_table.h"
#include "engine/core/journal.h"
#include "engine/core/kv_move.h"
#include "engine/core/prefix_cache.h"
#include "engine/core/session_table.h"
#include "engine/core/timer_queue.h"
#include "engine/core/token_decoder.h"

namespace fermata {

// The generations of one traffic class that are not paused.
struct ClassState {
  GenerationQueue lacking;  // QUEUED or PREEMPTED, without all the blocks that they need
  GenerationQueue ready;    // QUEUED or PREEMPTED, with them
  GenerationQueue parked;   // PREEMPTED, with KV (some or all) elsewhere than on the device, and not on its way back
  int64_t queued_count = 0;
  int64_t running_count = 0;
  int64_t stalled_count = 0;  // RUNNING, and without the block for their next token
  int64_t block_count = 0;    // that they hold
};

// Those that are PAUSED and not moving, by a tier that they have KV on; the first is the first to give way.
using RestingSet = absl::btree_set<std::pair<int64_t, Generation*>>;

// A move of KV that is under way.
struct MoveRecord {
  Generation* generation = nullptr;  // null: it has ended meanwhile, and what follows is what it has left
  KvTier from = KvTier::kNone;
  KvTier to = KvTier::kNone;
  int64_t block_count = 0;    // with KV, that will be on `to`
  int64_t keep = 0;           // to the host: how many, from the beginning, stay on the device
  int64_t freeing_count = 0;  // blocks of the device that will be free by it
  bool cancelled = false;     // its outcome is not wanted any more
  HeldKv left = {};
  KvUse left_use = KvUse::kPaused;
};

// Passive. Who writes: Residency the queues, pools, moves and counts of blocks; LifeCycle the timers, and what
// sessions hold; CommandProcessor the table's new entries and
// `draining`; `counters` whoever makes the change that is counted.
struct EngineState {
  EngineState(const EngineOptions& options, const TokenDecoder& decoder)
      : options(options),
        decoder(decoder),
        table(options.max_finished, options.finished_age),
        pool(options.block_count),
        host_pool(options.host_block_count),
        cache(options.block_tokens),
        sessions(options.first_revision),
        journal(options.first_revision) {
    classes.resize(options.class_count());
  }

  const EngineOptions options;
  const TokenDecoder& decoder;

  GenerationTable table;
  std::vector<ClassState> classes;  // by Generation::class_index
  GenerationQueue running;
  GenerationQueue returning;        // PREEMPTED, with KV on its way back to the device
  GenerationQueue waiting_holders;  // PREEMPTED and not moving, with KV (some or all) on the device
  BlockPool pool;
  BlockPool host_pool;
  int64_t disk_used_count = 0;  // blocks in files, and of moves on their way there
  PrefixCache cache;
  TimerQueue timers;
  SessionTable sessions;
  Journal journal;

  absl::btree_map<KvMoveId, MoveRecord> moves;
  KvMoveId last_move = kNoMove;
  int64_t leaving_block_count = 0;                    // of the device: free once those moves are done
  absl::Time disk_retry_time = absl::InfinitePast();  // after a failure nothing is written before it
  RestingSet resting_by_tier[kKvTierCount];           // by where they have KV: some are on the device and on the host
  RestingSet wanting_by_tier[kKvTierCount];           // by where they were asked to go
  int64_t next_rest_tick = 0;

  int64_t waiting_count = 0;  // QUEUED and PREEMPTED
  int64_t stalled_count = 0;  // of all classes

  // Without step and revision, which the journal knows.
  EngineInfo counters;

  RestingSet& resting(KvTier tier) { return resting_by_tier[static_cast<int>(tier)]; }
  RestingSet& wanting(KvTier tier) { return wanting_by_tier[static_cast<int>(tier)]; }
  bool has_tiers() const { return options.host_block_count > 0 || options.disk_block_count > 0; }

  int64_t& count(GenerationState state) { return counters.count_by_state[static_cast<int>(state)]; }
  int64_t count(GenerationState state) const { return counters.count_by_state[static_cast<int>(state)]; }

  // Blocks that somebody may be given: free ones, and cached ones that nobody holds.
  int64_t available_block_count() const { return pool.free_count() + cache.unused_count(); }

  // What keeps the prefixes of those who must not share apart.
  absl::string_view SaltOf(const GenerationSpec& spec) const {
    return options.prefix_sharing == PrefixSharing::kTenant ? absl::string_view(spec.tenant) : absl::string_view();
  }

  // The cached blocks that a generation that has computed nothing would begin with. One token at least is left to
  // compute, for its logits.
  std::vector<PrefixCache::NodeId> MatchPrefix(const Generation& generation) const {
    if (options.prefix_sharing == PrefixSharing::kOff || generation.context.empty()) return {};
    return cache.Match(absl::MakeConstSpan(generation.context).subspan(0, generation.context.size() - 1),
                       SaltOf(generation.spec));
  }

  // The cached blocks that are twins of what `generation` has computed.
  std::vector<PrefixCache::NodeId> MatchComputed(const Generation& generation) const {
    if (options.prefix_sharing == PrefixSharing::kOff) return {};
    return cache.Match(absl::MakeConstSpan(generation.context).subspan(0, generation.computed_token_count),
                       SaltOf(generation.spec));
  }

  // All that are not finished.
  int64_t live_count() const { return active_count() + count(GenerationState::kPaused); }

  // Those of them that are not paused.
  int64_t active_count() const { return waiting_count + running.size(); }

  // Blocks that hold the KV of `token_count` tokens.
  int64_t BlockCountFor(int64_t token_count) const {
    return (token_count + options.block_tokens - 1) / options.block_tokens;
  }

  // The blocks of the device that hold KV of `generation`, in their places and complete.
  int64_t DeviceKvCount(const Generation& generation) const {
    const HeldKv& kv = generation.kv;
    return kv.tier == KvTier::kDevice ? BlockCountFor(generation.computed_token_count) : kv.kept_count;
  }

  // The blocks of the device that one that waits lacks before it can start: for its whole context, and for the token
  // that follows from it, so that it does not start in vain.
  int64_t MissingBlockCount(const Generation& generation) const {
    const int64_t held = static_cast<int64_t>(generation.kv.blocks.size());
    const int64_t tokens =
        std::min<int64_t>(static_cast<int64_t>(generation.context.size()) + 1, generation.token_limit());
    return std::max<int64_t>(0, BlockCountFor(tokens) - held);
  }

  // How many available ones that takes: less those that it will share with others that hold them. O(context).
  int64_t AdmissionCost(const Generation& generation) const {
    int64_t cost = MissingBlockCount(generation);
    if (!generation.kv.blocks.empty() || generation.kv.parked()) return cost;
    for (const PrefixCache::NodeId node : MatchPrefix(generation)) cost -= cache.holder_count(node) > 0 ? 1 : 0;
    return cost;
  }

  // The blocks that a RUNNING one lacks for its next token.
  int64_t GrowthOf(const Generation& generation) const {
    const int64_t held = static_cast<int64_t>(generation.kv.blocks.size());
    const int64_t tokens = static_cast<int64_t>(generation.context.size());
    return held * options.block_tokens >= tokens ? 0 : BlockCountFor(tokens) - held;
  }

  // How many blocks more the class of `generation` may hold; negative if a Continue has brought it beyond its cap.
  int64_t ClassRoom(const Generation& generation) const {
    const size_t index = generation.class_index;
    if (index >= options.classes.size()) return std::numeric_limits<int64_t>::max();
    return options.classes[index].max_kv_blocks - classes[index].block_count;
  }
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_ENGINE_STATE_H_
