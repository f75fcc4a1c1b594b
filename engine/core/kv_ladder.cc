#include "engine/core/kv_ladder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/check.h"

namespace fermata {

void KvLadder::Plan() {
  if (!state_.has_tiers()) return;
  MakeRoom();
  ServeRequests();
}

void KvLadder::MakeRoom() {
  const absl::Span<Generation* const> wanting = scheduler_.WantBlocks();
  // What is free and what is coming goes to them in their order.
  int64_t free = state_.available_block_count();
  int64_t coming = state_.leaving_block_count;
  for (Generation* generation : wanting) {
    const int64_t need = state_.MissingBlockCount(*generation);
    if (need <= free) {
      free -= need;
      if (generation->kv.parked()) residency_.BeginMove(*generation, KvTier::kDevice);
      continue;
    }
    const int64_t shortage = need - free - coming;
    int64_t freed = 0;
    // Nobody overtakes it to what it waits for.
    if (shortage > 0 && !Free(*generation, shortage, &freed)) return;
    coming += freed - (need - free);
    free = 0;
  }
}

bool KvLadder::Free(const Generation& wanting, int64_t shortage, int64_t* freed) {
  std::vector<Step> steps;
  Room room = RoomNow();
  const auto add = [&](Generation* generation) {
    if (generation == &wanting || generation->own_block_count() == 0) return;
    const KvTier to = PlaceFor(*generation, room, steps);
    if (to == KvTier::kNone) return;
    steps.push_back({generation, to});
    *freed += generation->own_block_count();
  };
  const RestingSet& paused = state_.resting(KvTier::kDevice);
  for (auto it = paused.begin(); it != paused.end() && *freed < shortage; ++it) add(it->second);
  const GenerationQueue& holders = state_.waiting_holders;
  for (auto it = holders.end(); it != holders.begin() && *freed < shortage;) {
    Generation* holder = (--it)->generation;
    if (!(wanting.order < holder->order)) break;
    add(holder);
  }
  if (state_.options.displacement == Displacement::kRunning) {
    for (auto it = state_.running.end(); it != state_.running.begin() && *freed < shortage;) {
      Generation* running = (--it)->generation;
      if (running->order.priority <= wanting.order.priority + wanting.aged_levels) break;
      if (MayDisplace(*running, wanting)) add(running);
    }
  }
  if (*freed < shortage) return false;
  Start(steps);
  return true;
}

bool KvLadder::MayDisplace(const Generation& running, const Generation& wanting) const {
  if (running.class_index == wanting.class_index || state_.options.classes.empty()) return true;
  if (running.class_index == static_cast<int32_t>(state_.options.classes.size())) return true;
  // What a class has reserved only its own may take.
  return state_.classes[running.class_index].running_count > state_.options.classes[running.class_index].reserved;
}

KvLadder::Room KvLadder::RoomNow() {
  Room room = {.host = state_.host_pool.free_count(),
               .disk = state_.options.disk_block_count - state_.disk_used_count,
               .next_on_host = state_.resting(KvTier::kHost).begin()};
  // What is on its way from there will be free.
  for (const auto& [id, record] : state_.moves) {
    if (record.from == KvTier::kHost && !record.cancelled) room.host += record.block_count;
  }
  if (state_.disk_retry_time > state_.journal.now()) room.disk = 0;
  return room;
}

KvTier KvLadder::PlaceFor(const Generation& generation, Room& room, std::vector<Step>& steps) {
  const int64_t count = state_.BlockCountFor(generation.computed_token_count);
  Room after = room;
  std::vector<Step> leaving;
  const RestingSet& on_host = state_.resting(KvTier::kHost);
  while (after.host < count && after.next_on_host != on_host.end()) {
    Generation* oldest = (after.next_on_host++)->second;
    const int64_t freed = static_cast<int64_t>(oldest->kv.host_blocks.size());
    if (freed > after.disk) continue;
    after.disk -= freed;
    after.host += freed;
    leaving.push_back({oldest, KvTier::kDisk});
  }
  if (after.host >= count) {
    room = after;
    room.host -= count;
    steps.insert(steps.end(), leaving.begin(), leaving.end());
    return KvTier::kHost;
  }
  if (count > room.disk) return KvTier::kNone;
  room.disk -= count;
  return KvTier::kDisk;
}

void KvLadder::Start(const std::vector<Step>& steps) {
  for (const Step& step : steps) {
    // Where others have to leave the host first, this one is found again when they have.
    if (!residency_.MoveHasRoom(*step.generation, step.to)) continue;
    if (step.generation->state() == GenerationState::kRunning) life_cycle_.Displace(*step.generation);
    residency_.BeginMove(*step.generation, step.to);
  }
}

void KvLadder::ServeRequests() {
  for (const KvTier to : {KvTier::kDisk, KvTier::kHost, KvTier::kDevice}) {
    RestingSet& wanting = state_.wanting(to);
    while (!wanting.empty()) {
      Generation* first = wanting.begin()->second;
      if (first->kv.tier == to || (first->kv.tier == KvTier::kNone && to != KvTier::kDisk)) {
        // It is there, or there is nothing to move.
        residency_.Change(*first, [&] { first->wanted_tier = KvTier::kNone; });
        continue;
      }
      // Those that are to run come first.
      if (to == KvTier::kDevice && !scheduler_.WantBlocks().empty()) break;
      if (!residency_.MoveHasRoom(*first, to)) {
        std::vector<Step> steps;
        Room room = RoomNow();
        if (to == KvTier::kHost && PlaceFor(*first, room, steps) == KvTier::kHost) Start(steps);
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
