#include "engine/core/kv_ladder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "engine/core/check.h"

namespace fermata {

void KvLadder::Plan() {
  Grow();
  if (state_.has_tiers() || state_.options.allow_recompute) {
    MakeRoom();
    MakeRoomInClasses();
  }
  if (state_.has_tiers()) ServeRequests();
}

void KvLadder::Grow() {
  growing_.clear();
  for (const GenerationQueue::Entry& entry : state_.running) {
    if (state_.GrowthOf(*entry.generation) > 0) growing_.push_back(entry.generation);
  }
  promised_ = 0;
  for (Generation* generation : growing_) {
    // One ahead of it may have made it give way.
    if (generation->state() == GenerationState::kRunning) GrowOrStall(*generation, &promised_);
  }
}

bool KvLadder::TryGrow(Generation& generation) {
  const int64_t need = state_.GrowthOf(generation);
  if (need > state_.available_block_count() || need > state_.ClassRoom(generation)) return false;
  residency_.Grow(generation);
  return true;
}

void KvLadder::GrowOrStall(Generation& generation, int64_t* promised) {
  if (TryGrow(generation)) return;
  const int64_t need = state_.GrowthOf(generation);
  const bool at_cap = need > state_.ClassRoom(generation);
  const VictimSet::Count count = at_cap ? VictimSet::Count::kHeld : VictimSet::Count::kFree;
  const bool is_coming = at_cap ? ClassIsLeaving(generation) : state_.leaving_block_count - *promised >= need;
  int64_t freed = 0;
  const bool is_found = is_coming || Free(generation, need, count, &freed);
  // What was dropped is free at once.
  if (is_found && TryGrow(generation)) return;
  residency_.Stall(generation);
  if (is_found) {
    *promised += at_cap ? 0 : need;
    return;
  }
  bool others_ahead = false;
  for (const GenerationQueue::Entry& entry : state_.running) {
    if (at_cap && entry.generation->class_index != generation.class_index) continue;
    if (generation.order < entry.order) return;
    others_ahead |= entry.generation != &generation;
  }
  if (others_ahead) life_cycle_.Displace(generation);
}

bool KvLadder::ClassIsLeaving(const Generation& generation) const {
  for (const auto& [id, record] : state_.moves) {
    const Generation* moving = record.generation;
    if (moving == nullptr || moving->class_index != generation.class_index || record.cancelled) continue;
    const bool leaves = record.from == KvTier::kDevice || (record.to == KvTier::kDisk && moving->kv.kept_count > 0);
    if (leaves && moving->state() != GenerationState::kPaused) return true;
  }
  return false;
}

void KvLadder::MakeRoom() {
  const absl::Span<Generation* const> wanting = scheduler_.WantBlocks();
  // What is free and what is coming goes to them in their order.
  int64_t free = state_.available_block_count();
  int64_t coming = std::max<int64_t>(0, state_.leaving_block_count - promised_);
  for (Generation* generation : wanting) {
    // It has given way to one ahead of it, and nobody overtakes it.
    if (generation->kv.moving()) return;
    const bool parked = generation->kv.parked();
    const int64_t need = parked ? state_.MissingBlockCount(*generation) : state_.AdmissionCost(*generation);
    if (need > free) {
      const int64_t shortage = need - free - coming;
      int64_t freed = 0;
      // Nobody overtakes it to what it waits for.
      if (shortage > 0 && !Free(*generation, shortage, VictimSet::Count::kFree, &freed)) return;
      // What was dropped is free already.
      if (need > state_.available_block_count()) {
        coming += freed - (need - free);
        free = 0;
        continue;
      }
      free = state_.available_block_count();
    }
    free -= need;
    if (parked) residency_.BeginMove(*generation, KvTier::kDevice);
  }
}

void KvLadder::MakeRoomInClasses() {
  for (int32_t i = 0; i < static_cast<int32_t>(state_.options.classes.size()); ++i) {
    const Generation* head = scheduler_.StuckHead(i);
    if (head == nullptr) continue;
    int64_t freed = 0;
    Free(*head, scheduler_.ClassShortage(*head), VictimSet::Count::kHeld, &freed);
  }
}

bool KvLadder::MayDrop(const Generation& generation) const {
  return state_.options.allow_recompute && generation.state() != GenerationState::kPaused;
}

void KvLadder::AddVictims(const Generation& wanting, int64_t shortage, VictimSet::Count count, VictimSet& victims) {
  Room room = RoomNow();
  const bool has_place = room.host > 0 || room.disk > 0;
  std::vector<Step> steps;
  const auto add = [&](Generation* generation) {
    if (generation == &wanting || generation->kv.blocks.empty()) return;
    if (count == VictimSet::Count::kHeld && generation->class_index != wanting.class_index) return;
    if (has_place && PlaceFor(*generation, /*keep=*/0, room, steps) != KvTier::kNone) return victims.Add(*generation);
    // The host takes what it has room for, from the end.
    const int64_t keep = std::max<int64_t>(0, state_.DeviceKvCount(*generation) - std::max<int64_t>(0, room.host));
    if (has_place && keep < static_cast<int64_t>(generation->kv.blocks.size())) {
      room.host -= state_.DeviceKvCount(*generation) - keep;
      return victims.Add(*generation, keep);
    }
    if (MayDrop(*generation)) victims.Add(*generation);
  };
  const RestingSet& paused = state_.resting(KvTier::kDevice);
  if (has_place && count == VictimSet::Count::kFree) {
    for (auto it = paused.begin(); it != paused.end() && victims.freed() < shortage; ++it) add(it->second);
  }
  const GenerationQueue& holders = state_.waiting_holders;
  for (auto it = holders.end(); it != holders.begin() && victims.freed() < shortage;) {
    Generation* holder = (--it)->generation;
    if (!(wanting.order < holder->order)) break;
    add(holder);
  }
  const bool runs = wanting.state() == GenerationState::kRunning;
  if (!runs && state_.options.displacement == Displacement::kNever) return;
  for (auto it = state_.running.end(); it != state_.running.begin() && victims.freed() < shortage;) {
    Generation* running = (--it)->generation;
    const bool is_ahead = runs ? !(wanting.order < running->order)
                               : running->order.priority <= wanting.order.priority + wanting.aged_levels;
    if (is_ahead) break;
    if (runs || MayDisplace(*running, wanting, victims)) add(running);
  }
}

bool KvLadder::Free(const Generation& wanting, int64_t shortage, VictimSet::Count count, int64_t* freed) {
  if (!state_.has_tiers() && !state_.options.allow_recompute) return false;
  VictimSet victims(state_.cache, count);
  AddVictims(wanting, shortage, count, victims);
  if (victims.freed() < shortage) return false;
  victims.Spare(shortage, state_.options.least_demotion_blocks);
  *freed = victims.freed();
  Room room = RoomNow();
  std::vector<Step> steps;
  for (const VictimSet::Victim& victim : victims.victims()) {
    const KvTier to = PlaceFor(*victim.generation, victim.keep, room, steps);
    if (to == KvTier::kNone && !MayDrop(*victim.generation)) return false;
    steps.push_back({victim.generation, to, to == KvTier::kHost ? victim.keep : 0});
  }
  Start(steps);
  return true;
}

bool KvLadder::MayDisplace(const Generation& running, const Generation& wanting, const VictimSet& victims) const {
  if (running.class_index == wanting.class_index || state_.options.classes.empty()) return true;
  if (running.class_index == static_cast<int32_t>(state_.options.classes.size())) return true;
  // What a class has reserved only its own may take.
  const int64_t displaced = absl::c_count_if(victims.victims(), [&](const VictimSet::Victim& victim) {
    const Generation& other = *victim.generation;
    return other.state() == GenerationState::kRunning && other.class_index == running.class_index;
  });
  return state_.classes[running.class_index].running_count - displaced >
         state_.options.classes[running.class_index].reserved;
}

KvLadder::Room KvLadder::RoomNow() {
  Room room = {.host = state_.host_pool.free_count(),
               .disk = state_.options.disk_block_count - state_.disk_used_count,
               .next_on_host = state_.resting(KvTier::kHost).begin()};
  // What is on its way from there will be free.
  for (const auto& [id, record] : state_.moves) {
    const HeldKv& kv = record.generation != nullptr ? record.generation->kv : record.left;
    if (record.from == KvTier::kHost && !record.cancelled) room.host += static_cast<int64_t>(kv.host_blocks.size());
  }
  if (state_.disk_retry_time > state_.journal.now()) room.disk = 0;
  return room;
}

KvTier KvLadder::PlaceFor(const Generation& generation, int64_t keep, Room& room, std::vector<Step>& steps) {
  const int64_t count = std::max<int64_t>(0, state_.DeviceKvCount(generation) - keep);
  if (count == 0) return KvTier::kHost;
  Room after = room;
  std::vector<Step> leaving;
  const RestingSet& on_host = state_.resting(KvTier::kHost);
  while (after.host < count && after.next_on_host != on_host.end()) {
    Generation* oldest = (after.next_on_host++)->second;
    const int64_t written = state_.BlockCountFor(oldest->computed_token_count);
    if (oldest == &generation || written > after.disk) continue;
    after.disk -= written;
    after.host += static_cast<int64_t>(oldest->kv.host_blocks.size());
    leaving.push_back({oldest, KvTier::kDisk});
  }
  if (after.host >= count) {
    room = after;
    room.host -= count;
    steps.insert(steps.end(), leaving.begin(), leaving.end());
    return KvTier::kHost;
  }
  const int64_t written = state_.BlockCountFor(generation.computed_token_count);
  if (written > room.disk) return KvTier::kNone;
  room.disk -= written;
  return KvTier::kDisk;
}

void KvLadder::Start(const std::vector<Step>& steps) {
  for (const Step& step : steps) {
    Generation& generation = *step.generation;
    // It may be leaving the host as well, for another one; if so it has gone from the device by that.
    if (generation.kv.moving()) continue;
    if (step.to == KvTier::kNone) {
      life_cycle_.Drop(generation);
      continue;
    }
    // Where others have to leave the host first, this one is found again when they have.
    if (!residency_.MoveHasRoom(generation, step.to, step.keep)) continue;
    if (generation.state() == GenerationState::kRunning) life_cycle_.Displace(generation);
    if (step.to == KvTier::kHost && state_.DeviceKvCount(generation) <= step.keep) {
      life_cycle_.Trim(generation, step.keep);
    } else {
      residency_.BeginMove(generation, step.to, step.keep);
    }
  }
}

void KvLadder::ServeRequests() {
  for (const KvTier to : {KvTier::kDisk, KvTier::kHost, KvTier::kDevice}) {
    RestingSet& wanting = state_.wanting(to);
    while (!wanting.empty()) {
      Generation* first = wanting.begin()->second;
      if (first->kv.rests_on(to) || (first->kv.tier == KvTier::kNone && to != KvTier::kDisk)) {
        // It is there, or there is nothing to move.
        residency_.Change(*first, [&] { first->wanted_tier = KvTier::kNone; });
        continue;
      }
      // Those that are to run come first.
      if (to == KvTier::kDevice && (state_.stalled_count > 0 || !scheduler_.WantBlocks().empty())) break;
      if (!residency_.MoveHasRoom(*first, to)) {
        std::vector<Step> steps;
        Room room = RoomNow();
        if (to == KvTier::kHost && PlaceFor(*first, /*keep=*/0, room, steps) == KvTier::kHost) Start(steps);
        break;
      }
      residency_.BeginMove(*first, to);
    }
  }
}

void KvLadder::OnDone(const KvMoveDone& done) {
  const Residency::Ended ended = residency_.EndMove(done.id, done.status);
  EngineInfo& counters = state_.counters;
  if (done.status.ok()) {
    ++counters.kv_move_total[static_cast<int>(ended.from)][static_cast<int>(ended.to)];
  } else if (!ended.cancelled) {
    ++counters.kv_move_failed_total;
    if (ended.to == KvTier::kDisk) state_.disk_retry_time = state_.journal.now() + kDiskRetryPeriod;
  }
  if (ended.generation == nullptr || ended.cancelled) return;
  Generation& generation = *ended.generation;
  KvMoved event = {.from = ended.from, .to = ended.to, .block_count = ended.block_count};
  event.kv_blocks = generation.kv_block_counts();
  if (!done.status.ok()) event.error = std::string(done.status.message());
  const bool is_lost = !done.status.ok() && ended.from == KvTier::kDisk;
  state_.journal.Record(generation, std::move(event));
  if (is_lost) {
    life_cycle_.Finish(generation, FinishReason::kError, Cause::kError,
                       absl::StrCat("its KV cannot be read back from the disk: ", done.status.ToString()));
  }
}

}  // namespace fermata
