// Of Residency: what moves between the tiers.

#include <memory>
#include <utility>
#include <vector>

#include "engine/core/check.h"
#include "engine/core/residency.h"

namespace fermata {

bool Residency::MoveHasRoom(const Generation& generation, KvTier to, int64_t keep) const {
  const int64_t count = state_.BlockCountFor(generation.computed_token_count);
  switch (to) {
    case KvTier::kDevice:
      return state_.MissingBlockCount(generation) <= state_.available_block_count();
    case KvTier::kHost: {
      const bool is_on_disk = generation.kv.tier == KvTier::kDisk;
      return (is_on_disk ? count : state_.DeviceKvCount(generation) - keep) <= state_.host_pool.free_count();
    }
    case KvTier::kDisk:
      return count <= state_.options.disk_block_count - state_.disk_used_count;
    case KvTier::kNone:
      return false;
  }
  return false;
}

void Residency::BeginMove(Generation& generation, KvTier to, int64_t keep) {
  HeldKv& kv = generation.kv;
  FERMATA_CHECK(!kv.moving() && MoveHasRoom(generation, to, keep));
  FERMATA_CHECK(generation.state() != GenerationState::kRunning);
  const bool leaves_device = to == KvTier::kHost && state_.DeviceKvCount(generation) > keep;
  FERMATA_CHECK(leaves_device || kv.tier != to);
  state_.last_move = KvMoveId{static_cast<int64_t>(state_.last_move) + 1};
  KvMove move = {.id = state_.last_move,
                 .generation_id = generation.id,
                 .from = leaves_device ? KvTier::kDevice : kv.tier,
                 .to = to};
  MoveRecord record = {.generation = &generation,
                       .from = move.from,
                       .to = to,
                       .block_count = state_.BlockCountFor(generation.computed_token_count),
                       .keep = keep};
  Change(generation, [&] {
    if (to == KvTier::kHost) {
      SendToHost(generation, move, record);
    } else if (to == KvTier::kDisk) {
      SendToDisk(generation, move, record);
    } else {
      record.block_count -= kv.kept_count;
      BringBack(generation, move);
    }
    kv.move = move.id;
    kv.move_to = to;
  });
  state_.leaving_block_count += record.freeing_count;
  state_.moves.emplace(move.id, std::move(record));
  state_.journal.StartMove(std::move(move));
}

void Residency::SendToHost(Generation& generation, KvMove& move, MoveRecord& record) {
  HeldKv& kv = generation.kv;
  if (move.from == KvTier::kDevice) {
    const int64_t end = state_.DeviceKvCount(generation);
    record.block_count = end - record.keep;
    record.freeing_count = FreeingCount(kv, record.keep);
    move.first_block = static_cast<int32_t>(record.keep);
    move.source.assign(kv.blocks.begin() + record.keep, kv.blocks.begin() + end);
  }
  move.block_count = static_cast<int32_t>(record.block_count);
  move.target = state_.host_pool.Allocate(record.block_count);
  kv.host_blocks.insert(kv.host_blocks.begin(), move.target.begin(), move.target.end());
  kv.arriving_count = record.block_count;
}

void Residency::SendToDisk(Generation& generation, KvMove& move, MoveRecord& record) {
  const HeldKv& kv = generation.kv;
  const auto kv_end = kv.blocks.begin() + state_.DeviceKvCount(generation);
  if (kv.tier == KvTier::kDevice) move.source.assign(kv.blocks.begin(), kv_end);
  if (kv.tier == KvTier::kHost) {
    move.device_source.assign(kv.blocks.begin(), kv_end);
    move.source = kv.host_blocks;
  }
  move.block_count = static_cast<int32_t>(record.block_count);
  record.freeing_count = FreeingCount(kv, 0);
  state_.disk_used_count += record.block_count;
  move.parked = std::make_shared<const ParkedGeneration>(generation.Park(state_.journal.now()));
}

void Residency::BringBack(Generation& generation, KvMove& move) {
  HeldKv& kv = generation.kv;
  const int64_t count = state_.BlockCountFor(generation.computed_token_count);
  // What has a twin in the cache need not be copied. Behind blocks of its own it can share none.
  if (kv.blocks.size() == kv.shared.size()) {
    TakeCached(generation, state_.MatchComputed(generation), UseOf(generation.state()));
  }
  const int64_t first = static_cast<int64_t>(kv.blocks.size());
  const std::vector<BlockId> blocks = TakeBlocks(state_.MissingBlockCount(generation));
  kv.blocks.insert(kv.blocks.end(), blocks.begin(), blocks.end());
  generation.shares_more = true;
  if (kv.tier == KvTier::kHost)
    move.source.assign(kv.host_blocks.begin() + (first - kv.kept_count), kv.host_blocks.end());
  move.first_block = static_cast<int32_t>(first);
  move.block_count = static_cast<int32_t>(count - first);
  move.target.assign(kv.blocks.begin() + first, kv.blocks.begin() + count);
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
  Change(generation, [&] {
    if (record.to == KvTier::kDisk && status.ok()) {
      // Also if nobody wants it any more: it has taken the place of an older one.
      state_.disk_used_count -= kv.file_block_count;
      kv.file_block_count = record.block_count;
      kv.has_file = true;
    } else if (record.to == KvTier::kDisk) {
      state_.disk_used_count -= record.block_count;
    }
    kv.move = kNoMove;
    kv.move_to = KvTier::kNone;
    Settle(generation, record, done);
    // Some of it may still have to follow.
    const bool is_there = generation.wanted_tier == record.to && kv.kept_count == 0;
    if (!done || is_there) generation.wanted_tier = KvTier::kNone;
  });
  return ended;
}

void Residency::Settle(Generation& generation, const MoveRecord& record, bool done) {
  HeldKv& kv = generation.kv;
  const KvUse use = UseOf(generation.state());
  if (record.to == KvTier::kHost) {
    const int64_t arriving = std::exchange(kv.arriving_count, 0);
    if (!done) return ReleaseHost(kv, arriving);
    if (record.from == KvTier::kDevice) ReleaseDevice(kv, use, record.keep);
    kv.kept_count = record.keep;
  } else if (record.to == KvTier::kDevice) {
    // What it has been given beside what had stayed.
    if (!done) return ReleaseDevice(kv, use, kv.kept_count);
    ReleaseHost(kv);
    kv.kept_count = 0;
  } else if (done) {
    ReleaseDevice(kv, use);
    ReleaseHost(kv);
    kv.kept_count = 0;
  }
  // A file without KV is no place for it to be.
  if (done && record.block_count > 0) kv.tier = record.to;
}

}  // namespace fermata
