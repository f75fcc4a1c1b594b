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
  const bool is_split = kv.kept_count > 0;
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
        if (is_split) place(state_.waiting_holders);
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
      if (is_split) rest(state_.resting(KvTier::kDevice));
      if (generation.wanted_tier != KvTier::kNone) rest(state_.wanting(generation.wanted_tier));
      return;
    case State::kNone:
    case State::kFinished:
      return;
  }
}

void Residency::TakeCached(Generation& generation, const std::vector<PrefixCache::NodeId>& nodes, KvUse use) {
  HeldKv& kv = generation.kv;
  FERMATA_CHECK(kv.blocks.size() == kv.shared.size());
  for (size_t i = kv.shared.size(); i < nodes.size(); ++i) {
    state_.cache.Hold(nodes[i], use);
    kv.shared.push_back(nodes[i]);
    kv.blocks.push_back(state_.cache.block(nodes[i]));
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
  FERMATA_CHECK(generation.state() == State::kPreempted && state_.DeviceKvCount(generation) > 0);
  FERMATA_CHECK(!generation.kv.moving());
  Change(generation, [&] {
    ReleaseDevice(generation.kv, KvUse::kWaiting);
    ReleaseHost(generation.kv);
    generation.kv.kept_count = 0;
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

int64_t Residency::FreeingCount(const HeldKv& kv, int64_t keep) const {
  const int64_t shared = static_cast<int64_t>(kv.shared.size());
  int64_t count = static_cast<int64_t>(kv.blocks.size()) - std::max(keep, shared);
  for (int64_t i = keep; i < shared; ++i) count += state_.cache.holder_count(kv.shared[i]) == 1;
  return count;
}

void Residency::ReleaseDevice(HeldKv& kv, KvUse use, int64_t keep) {
  const size_t kept = static_cast<size_t>(keep);
  state_.pool.Release(absl::MakeConstSpan(kv.blocks).subspan(std::max(kept, kv.shared.size())));
  // From the end, so that the beginning, which more may share, stays longest.
  for (; kv.shared.size() > kept; kv.shared.pop_back()) state_.cache.Drop(kv.shared.back(), use);
  kv.blocks.resize(kept);
}

void Residency::ReleaseHost(HeldKv& kv, int64_t count) {
  state_.host_pool.Release(absl::MakeConstSpan(kv.host_blocks).subspan(0, count));
  kv.host_blocks.erase(kv.host_blocks.begin(), kv.host_blocks.begin() + count);
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

void Residency::Trim(Generation& generation, int64_t keep) {
  FERMATA_CHECK(generation.state() != State::kRunning && !generation.kv.moving());
  FERMATA_CHECK(state_.DeviceKvCount(generation) <= keep);
  Change(generation, [&] { ReleaseDevice(generation.kv, UseOf(generation.state()), keep); });
}

void Residency::AdoptFile(Generation& generation, int64_t block_count) {
  generation.kv.has_file = true;
  generation.kv.file_block_count = block_count;
  generation.kv.tier = block_count > 0 ? KvTier::kDisk : KvTier::kNone;
  state_.disk_used_count += block_count;
}

}  // namespace fermata
