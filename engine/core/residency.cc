#include "engine/core/residency.h"

#include <algorithm>
#include <utility>

#include "engine/core/check.h"

namespace fermata {
namespace {

using State = GenerationState;

bool Waits(State state) { return state == State::kQueued || state == State::kPreempted; }

// Where blocks are counted that a generation in this state holds; nullptr where none are held.
int64_t* CounterOf(KvPoolInfo& pool, State state) {
  switch (state) {
    case State::kRunning:
      return &pool.running_count;
    case State::kPreempted:
      return &pool.preempted_count;
    case State::kPaused:
      return &pool.paused_count;
    case State::kNone:
    case State::kQueued:
    case State::kFinished:
      return nullptr;
  }
  return nullptr;
}

}  // namespace

KvUse UseOf(State state) {
  if (state == State::kRunning) return KvUse::kRunning;
  return state == State::kPaused ? KvUse::kPaused : KvUse::kWaiting;
}

void Residency::Change(Generation& generation, absl::FunctionRef<void()> change) {
  Leave(generation);
  change();
  Enter(generation);
}

void Residency::Reorder(Generation& generation, absl::FunctionRef<void()> change) {
  Place(generation, -1);
  change();
  Place(generation, 1);
}

void Residency::Count(Generation& generation, int sign) {
  Place(generation, sign);
  CountBlocks(generation, sign);
  const State state = generation.state();
  if (!Waits(state) && state != State::kRunning) return;
  ClassState& own = state_.classes[generation.class_index];
  own.queued_count += state == State::kQueued ? sign : 0;
  own.running_count += state == State::kRunning ? sign : 0;
  own.stalled_count += generation.stalled ? sign : 0;
  state_.stalled_count += generation.stalled ? sign : 0;
  own.block_count += sign * static_cast<int64_t>(generation.kv.blocks.size());
  state_.waiting_count += Waits(state) ? sign : 0;
}

void Residency::CountBlocks(const Generation& generation, int sign) {
  const HeldKv& kv = generation.kv;
  EngineInfo& counters = state_.counters;
  const State state = generation.state();
  if (int64_t* counter = CounterOf(counters.device, state)) *counter += sign * generation.own_block_count();
  if (int64_t* counter = CounterOf(counters.host, state))
    *counter += sign * static_cast<int64_t>(kv.host_blocks.size());
  if (int64_t* counter = CounterOf(counters.disk, state)) *counter += sign * kv.file_block_count;
}

void Residency::Place(Generation& generation, int sign) {
  const HeldKv& kv = generation.kv;
  const auto place = [&](GenerationQueue& queue) { sign > 0 ? queue.Insert(generation) : queue.Erase(generation); };
  const auto rest = [&](RestingSet& set) {
    const RestingSet::value_type entry(generation.rest_tick, &generation);
    sign > 0 ? static_cast<void>(set.insert(entry)) : static_cast<void>(set.erase(entry));
  };
  ClassState& own = state_.classes[generation.class_index];
  switch (generation.state()) {
    case State::kQueued:
    case State::kPreempted:
      if (kv.moving()) {
        if (kv.move_to == KvTier::kDevice) place(state_.returning);
      } else if (kv.parked()) {
        place(own.parked);
      } else {
        place(state_.MissingBlockCount(generation) > 0 ? own.lacking : own.ready);
        if (kv.tier == KvTier::kDevice) place(state_.waiting_holders);
      }
      return;
    case State::kRunning:
      place(state_.running);
      return;
    case State::kPaused:
      if (kv.moving()) return;
      rest(state_.resting(kv.tier));
      if (generation.wanted_tier != KvTier::kNone) rest(state_.wanting(generation.wanted_tier));
      return;
    case State::kNone:
    case State::kFinished:
      return;
  }
}

void Residency::TakeCached(Generation& generation, const std::vector<PrefixCache::NodeId>& nodes, KvUse use) {
  FERMATA_CHECK(generation.kv.blocks.empty());
  generation.kv.shared = nodes;
  for (const PrefixCache::NodeId node : nodes) {
    state_.cache.Hold(node, use);
    generation.kv.blocks.push_back(state_.cache.block(node));
  }
}

std::vector<BlockId> Residency::TakeBlocks(int64_t count) {
  while (state_.pool.free_count() < count) {
    const BlockId block = state_.cache.Evict();
    state_.pool.Release({&block, 1});
  }
  return state_.pool.Allocate(count);
}

void Residency::ReserveBlocks(Generation& generation) {
  HeldKv& kv = generation.kv;
  // A displaced or continued one may still have all of them.
  if (!kv.blocks.empty() && state_.MissingBlockCount(generation) == 0) return;
  FERMATA_CHECK(state_.MissingBlockCount(generation) <= state_.ClassRoom(generation));
  Change(generation, [&] {
    if (kv.blocks.empty()) {
      TakeCached(generation, state_.MatchPrefix(generation), KvUse::kRunning);
      generation.computed_token_count = static_cast<int32_t>(kv.shared.size()) * state_.options.block_tokens;
      // What had been computed before it was dropped was counted then.
      generation.cached_token_count += generation.GivenCount(generation.recompute_end, generation.computed_token_count);
    }
    const std::vector<BlockId> blocks = TakeBlocks(state_.MissingBlockCount(generation));
    kv.blocks.insert(kv.blocks.end(), blocks.begin(), blocks.end());
    kv.tier = KvTier::kDevice;
  });
  // Its output buffer too: no step has to move it.
  generation.context.reserve(generation.token_limit());
}

void Residency::Grow(Generation& generation) {
  FERMATA_CHECK(state_.GrowthOf(generation) <= state_.ClassRoom(generation));
  Change(generation, [&] {
    const std::vector<BlockId> blocks = TakeBlocks(state_.GrowthOf(generation));
    generation.kv.blocks.insert(generation.kv.blocks.end(), blocks.begin(), blocks.end());
    generation.stalled = false;
  });
}

void Residency::Stall(Generation& generation) {
  if (generation.stalled) return;
  Change(generation, [&] { generation.stalled = true; });
}

void Residency::Drop(Generation& generation) {
  FERMATA_CHECK(state_.options.allow_recompute);
  FERMATA_CHECK(generation.state() == State::kPreempted && generation.kv.tier == KvTier::kDevice);
  FERMATA_CHECK(!generation.kv.moving());
  Change(generation, [&] {
    ReleaseDevice(generation.kv, KvUse::kWaiting);
    // A file would be older than what has been told since.
    DiscardFile(generation.kv, generation.id);
    generation.kv.tier = KvTier::kNone;
    generation.recompute_end = std::max(generation.recompute_end, generation.computed_token_count);
    generation.computed_token_count = 0;
    generation.shares_more = true;
  });
}

void Residency::MoveShared(const Generation& generation, KvUse from, KvUse to) {
  if (from == to) return;
  for (const PrefixCache::NodeId node : generation.kv.shared) state_.cache.Move(node, from, to);
}

void Residency::ReleaseDevice(HeldKv& kv, KvUse use) {
  state_.pool.Release(absl::MakeConstSpan(kv.blocks).subspan(kv.shared.size()));
  // From the end, so that the beginning, which more may share, stays longest.
  for (auto it = kv.shared.rbegin(); it != kv.shared.rend(); ++it) state_.cache.Drop(*it, use);
  kv.blocks = {};
  kv.shared = {};
}

void Residency::ReleaseHost(HeldKv& kv) {
  state_.host_pool.Release(kv.host_blocks);
  kv.host_blocks = {};
}

void Residency::DiscardFile(HeldKv& kv, const GenerationId& id) {
  if (!kv.has_file) return;
  state_.disk_used_count -= kv.file_block_count;
  state_.journal.DiscardFile(id);
  kv.file_block_count = 0;
  kv.has_file = false;
}

void Residency::ReleaseAll(Generation& generation, KvUse use) {
  HeldKv& kv = generation.kv;
  DiscardFile(kv, generation.id);
  if (!kv.moving()) {
    ReleaseDevice(kv, use);
    ReleaseHost(kv);
  } else {
    // Somebody reads or writes them still.
    MoveRecord& record = state_.moves.at(kv.move);
    CancelMove(generation);
    // Now, not when the move ends: by then a new generation of this id may have a file.
    if (record.to == KvTier::kDisk) state_.journal.DiscardFile(generation.id);
    state_.counters.device.moving_count += generation.own_block_count();
    state_.counters.host.moving_count += static_cast<int64_t>(kv.host_blocks.size());
    record.generation = nullptr;
    record.left = std::move(kv);
    record.left_use = use;
  }
  kv = HeldKv();
}

bool Residency::MoveHasRoom(const Generation& generation, KvTier to) const {
  const int64_t count = state_.BlockCountFor(generation.computed_token_count);
  switch (to) {
    case KvTier::kDevice:
      return state_.MissingBlockCount(generation) <= state_.available_block_count();
    case KvTier::kHost:
      return count <= state_.host_pool.free_count();
    case KvTier::kDisk:
      return count <= state_.options.disk_block_count - state_.disk_used_count;
    case KvTier::kNone:
      return false;
  }
  return false;
}

void Residency::BeginMove(Generation& generation, KvTier to) {
  HeldKv& kv = generation.kv;
  FERMATA_CHECK(!kv.moving() && kv.tier != to && MoveHasRoom(generation, to));
  FERMATA_CHECK(generation.state() != State::kRunning);
  state_.last_move = KvMoveId{static_cast<int64_t>(state_.last_move) + 1};
  const int64_t count = state_.BlockCountFor(generation.computed_token_count);
  KvMove move = {.id = state_.last_move,
                 .generation_id = generation.id,
                 .from = kv.tier,
                 .to = to,
                 .block_count = static_cast<int32_t>(count)};
  MoveRecord record = {.generation = &generation, .from = kv.tier, .to = to, .block_count = count};
  Change(generation, [&] {
    if (kv.tier == KvTier::kDevice) {
      record.freeing_count = generation.own_block_count();
      for (const PrefixCache::NodeId node : kv.shared) record.freeing_count += state_.cache.holder_count(node) == 1;
      move.source.assign(kv.blocks.begin(), kv.blocks.begin() + count);
    } else if (kv.tier == KvTier::kHost) {
      move.source = kv.host_blocks;
    }
    if (to == KvTier::kDevice) {
      // What has a twin in the cache need not be copied.
      TakeCached(generation, state_.MatchComputed(generation), UseOf(generation.state()));
      const int64_t cached = static_cast<int64_t>(kv.shared.size());
      const std::vector<BlockId> blocks = TakeBlocks(state_.MissingBlockCount(generation));
      kv.blocks.insert(kv.blocks.end(), blocks.begin(), blocks.end());
      generation.shares_more = true;
      if (kv.tier == KvTier::kHost) move.source.erase(move.source.begin(), move.source.begin() + cached);
      move.first_block = static_cast<int32_t>(cached);
      move.block_count = static_cast<int32_t>(count - cached);
      move.target.assign(kv.blocks.begin() + cached, kv.blocks.begin() + count);
    } else if (to == KvTier::kHost) {
      kv.host_blocks = state_.host_pool.Allocate(count);
      move.target = kv.host_blocks;
    } else {
      state_.disk_used_count += count;
      move.parked = std::make_shared<const ParkedGeneration>(generation.Park(state_.journal.now()));
    }
    kv.move = move.id;
    kv.move_to = to;
  });
  state_.leaving_block_count += record.freeing_count;
  state_.moves.emplace(move.id, std::move(record));
  state_.journal.StartMove(std::move(move));
}

void Residency::CancelMove(Generation& generation) {
  HeldKv& kv = generation.kv;
  if (!kv.moving()) return;
  MoveRecord& record = state_.moves.at(kv.move);
  // What is on its way in is wanted by whoever would cancel it, but for one that ends.
  if (record.cancelled || (kv.move_to == KvTier::kDevice && generation.live())) return;
  if (record.from == KvTier::kDisk && generation.live()) return;
  record.cancelled = true;
  state_.leaving_block_count -= std::exchange(record.freeing_count, 0);
  state_.journal.CancelMove(kv.move);
}

Residency::Ended Residency::EndMove(KvMoveId id, const absl::Status& status) {
  const auto it = state_.moves.find(id);
  FERMATA_CHECK(it != state_.moves.end());
  MoveRecord record = std::move(it->second);
  state_.moves.erase(it);
  state_.leaving_block_count -= record.freeing_count;
  Ended ended = {record.generation, record.from, record.to, record.block_count, record.cancelled};
  if (record.generation == nullptr) {
    HeldKv& left = record.left;
    state_.counters.device.moving_count -= static_cast<int64_t>(left.blocks.size() - left.shared.size());
    state_.counters.host.moving_count -= static_cast<int64_t>(left.host_blocks.size());
    ReleaseDevice(left, record.left_use);
    ReleaseHost(left);
    if (record.to == KvTier::kDisk) state_.disk_used_count -= record.block_count;
    return ended;
  }
  Generation& generation = *record.generation;
  HeldKv& kv = generation.kv;
  const bool done = status.ok() && !record.cancelled;
  const KvTier left_tier = done ? record.from : record.to;
  Change(generation, [&] {
    if (left_tier == KvTier::kDevice) ReleaseDevice(kv, UseOf(generation.state()));
    if (left_tier == KvTier::kHost) ReleaseHost(kv);
    if (record.to == KvTier::kDisk && status.ok()) {
      // Also if nobody wants it any more: it has taken the place of an older one.
      state_.disk_used_count -= kv.file_block_count;
      kv.file_block_count = record.block_count;
      kv.has_file = true;
    } else if (record.to == KvTier::kDisk) {
      state_.disk_used_count -= record.block_count;
    }
    // A file without KV is no place for it to be.
    if (done && record.block_count > 0) kv.tier = record.to;
    if (!done || generation.wanted_tier == record.to) generation.wanted_tier = KvTier::kNone;
    kv.move = kNoMove;
    kv.move_to = KvTier::kNone;
  });
  return ended;
}

void Residency::AdoptFile(Generation& generation, int64_t block_count) {
  generation.kv.has_file = true;
  generation.kv.file_block_count = block_count;
  generation.kv.tier = block_count > 0 ? KvTier::kDisk : KvTier::kNone;
  state_.disk_used_count += block_count;
}

}  // namespace fermata
