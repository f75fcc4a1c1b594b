#include "engine/core/invariant_checker.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "engine/core/residency.h"

namespace fermata {
namespace {

using State = GenerationState;

absl::Status Expect(bool condition, absl::string_view what) {
  return condition ? absl::OkStatus() : absl::InternalError(what);
}

absl::Status ExpectEqual(absl::string_view what, int64_t counted, int64_t kept) {
  return Expect(counted == kept, absl::StrCat(what, ": counted ", counted, ", kept ", kept));
}

// The first error among `results`.
template <size_t n>
absl::Status FirstError(const absl::Status (&results)[n]) {
  for (const absl::Status& result : results) {
    if (!result.ok()) return result;
  }
  return absl::OkStatus();
}

int64_t SizeOf(const RestingSet (&sets)[kKvTierCount]) {
  int64_t size = 0;
  for (const RestingSet& set : sets) size += static_cast<int64_t>(set.size());
  return size;
}

// One pass over all generations.
class Recount {
 public:
  Recount(const EngineState& state, bool step_is_prepared)
      : state_(state), step_is_prepared_(step_is_prepared), block_is_held_(state.pool.block_count(), false) {}

  absl::Status Run() {
    for (const auto& [key, generation] : state_.table.all()) {
      for (const absl::Status& result : {CheckPlace(*generation), CheckTokens(*generation), CheckBlocks(*generation),
                                         CheckHoldsAndTimers(*generation)}) {
        if (!result.ok()) {
          return absl::InternalError(absl::StrCat("generation \"", generation->id.value(), "\" (",
                                                  Name(generation->state()), "): ", result.message()));
        }
      }
    }
    const absl::Status moves = CheckMoves();
    return moves.ok() ? CheckTotals() : moves;
  }

 private:
  // Its record is found both ways, and it is in the queue of its state and in no other.
  absl::Status CheckPlace(const Generation& generation) {
    const State s = generation.state();
    ++count_[static_cast<int>(s)];
    const bool waits = s == State::kQueued || s == State::kPreempted;
    const HeldKv& kv = generation.kv;
    const bool parked = waits && !kv.moving() && kv.parked();
    const bool stays = waits && !kv.moving() && !kv.parked();
    const bool lacks = stays && state_.MissingBlockCount(generation) > 0;
    const bool returns = waits && kv.moving() && kv.move_to == KvTier::kDevice;
    const bool rests = s == State::kPaused && !kv.moving();
    const bool wants = rests && generation.wanted_tier != KvTier::kNone;
    const ClassState& own = state_.classes[generation.class_index];
    ClassState& recounted = classes_[generation.class_index];
    recounted.queued_count += s == State::kQueued;
    recounted.running_count += s == State::kRunning;
    recounted.stalled_count += generation.stalled;
    stalled_count_ += generation.stalled;
    if (waits || s == State::kRunning) recounted.block_count += static_cast<int64_t>(generation.kv.blocks.size());
    lacking_count_ += lacks;
    waiting_count_ += waits;
    parked_count_ += parked;
    stays_count_ += stays;
    returning_count_ += returns;
    const bool waits_with_blocks = (stays && kv.tier == KvTier::kDevice) || (parked && kv.kept_count > 0);
    const bool rests_on_two = rests && kv.kept_count > 0;
    const auto rests_there = [&](KvTier tier) {
      return static_cast<int64_t>(state_.resting_by_tier[static_cast<int>(tier)].count(
          {generation.rest_tick, const_cast<Generation*>(&generation)}));
    };
    holder_count_ += waits_with_blocks;
    resting_count_ += rests + rests_on_two;
    wanting_count_ += wants;
    return FirstError({
        Expect(s != State::kNone, "has no state"),
        Expect(!generation.stalled || s == State::kRunning, "stands still and does not run"),
        Expect(state_.table.Find(generation.id) == &generation, "is not found by its id"),
        Expect(state_.table.Find(generation.key) == &generation, "is not found by its key"),
        ExpectEqual("in the queue of those that lack blocks", lacks, own.lacking.Contains(generation)),
        ExpectEqual("in the queue of those that are ready", stays && !lacks, own.ready.Contains(generation)),
        ExpectEqual("in the queue of those that are parked", parked, own.parked.Contains(generation)),
        ExpectEqual("in the queue of those that return", returns, state_.returning.Contains(generation)),
        ExpectEqual("in the queue of holders that wait", waits_with_blocks,
                    state_.waiting_holders.Contains(generation)),
        ExpectEqual("among those that rest", rests, rests_there(kv.tier)),
        ExpectEqual("among those that rest on the device", rests && (kv.tier == KvTier::kDevice || rests_on_two),
                    rests_there(KvTier::kDevice)),
        ExpectEqual("in the queue of RUNNING", s == State::kRunning, state_.running.Contains(generation)),
    });
  }

  absl::Status CheckTokens(const Generation& generation) {
    if (!generation.live()) return Expect(generation.context.empty(), "keeps its tokens");
    const int32_t prompt = generation.prompt_token_count;
    const int32_t appended = generation.appended_token_count;
    const int32_t output = generation.output_token_count;
    const int32_t computed = generation.computed_token_count;
    return FirstError({
        ExpectEqual("tokens", prompt + appended + output, static_cast<int64_t>(generation.context.size())),
        ExpectEqual(
            "prefilled tokens",
            generation.GivenCount(0, std::max(computed, generation.recompute_end)) - generation.cached_token_count,
            generation.prefilled_token_count),
        Expect(generation.recompute_end > 0 || generation.recomputed_token_count == 0,
               "is computed again, and was never dropped"),
        Expect(output < generation.spec.sampling.max_tokens || generation.held_finish != FinishReason::kNone,
               "has all its output and lives"),
        Expect(generation.held_finish == FinishReason::kNone || generation.state() == State::kPaused,
               "is held on stop and not paused"),
        // At the end of a prefill a token is sampled: from then on only the last one is not computed.
        Expect(generation.decoding() ? computed == prompt + appended + output - 1
                                     : computed < std::max(generation.prefill_end(), generation.recompute_end),
               absl::StrCat(computed, " tokens computed of ", prompt, " + ", appended, " + ", output)),
    });
  }

  absl::Status CheckBlocks(const Generation& generation) {
    const absl::Status tiers = CheckTiers(generation);
    if (!tiers.ok()) return tiers;
    const int64_t held = static_cast<int64_t>(generation.kv.blocks.size());
    const bool computed = generation.computed_token_count > 0;
    const bool elsewhere = generation.kv.parked();
    blocks_[static_cast<int>(generation.state())] += generation.own_block_count();
    for (size_t i = 0; i < generation.kv.blocks.size(); ++i) {
      const BlockId block = generation.kv.blocks[i];
      if (state_.pool.IsFree(block)) return absl::InternalError(absl::StrCat("holds free block ", Value(block)));
      if (i < generation.kv.shared.size()) {
        if (state_.cache.block(generation.kv.shared[i]) != block) return absl::InternalError("shares another block");
        ++holders_[{generation.kv.shared[i], UseOf(generation.state())}];
        if (!block_is_held_[Value(block)]) ++shared_count_;
      } else if (block_is_held_[Value(block)]) {
        // One of its own that is met twice would be written by two.
        return absl::InternalError(absl::StrCat("block ", Value(block), " is not its own"));
      }
      block_is_held_[Value(block)] = true;
    }
    switch (generation.state()) {
      case State::kRunning:
        return FirstError({
            Expect(computed || step_is_prepared_, "runs and has computed nothing"),
            Expect(held >= state_.BlockCountFor(generation.computed_token_count), "has KV without blocks"),
            Expect(!step_is_prepared_ || generation.stalled == (state_.GrowthOf(generation) > 0),
                   "runs without its block, or stands still with it"),
        });
      case State::kPreempted:
        // One that may go further than before gets the rest when it is admitted.
        return FirstError({
            Expect(computed || generation.recompute_end > 0, "is preempted and has computed nothing"),
            Expect(elsewhere || held >= state_.BlockCountFor(generation.computed_token_count), "has KV without blocks"),
        });
      case State::kPaused:
        return FirstError({
            Expect(elsewhere || computed == (held > 0), "has blocks without KV, or KV without blocks"),
            Expect(elsewhere || held >= state_.BlockCountFor(generation.computed_token_count), "has KV without blocks"),
        });
      case State::kQueued:
        return Expect(held == 0 && !computed, "is queued and has KV");
      case State::kNone:
      case State::kFinished:
        return ExpectEqual("blocks", 0, held);
    }
    return absl::OkStatus();
  }

  // All of its KV is on one tier, or its beginning on the device and its end on the host; and elsewhere only as long as
  // it moves.
  absl::Status CheckTiers(const Generation& generation) {
    const HeldKv& kv = generation.kv;
    const int64_t count = state_.BlockCountFor(generation.computed_token_count);
    const bool uses_device = kv.tier == KvTier::kDevice || kv.move_to == KvTier::kDevice || kv.kept_count > 0;
    const int64_t on_host = kv.tier == KvTier::kHost ? count - kv.kept_count : 0;
    for (const BlockId block : kv.host_blocks) {
      if (state_.host_pool.IsFree(block)) return absl::InternalError("holds a free block of the host");
      if (!host_blocks_.insert(block).second) return absl::InternalError("a block of the host has two holders");
    }
    file_block_count_ += kv.file_block_count;
    if (kv.moving()) {
      const auto it = state_.moves.find(kv.move);
      if (it == state_.moves.end() || it->second.generation != &generation)
        return absl::InternalError("moves, and no move is under way");
      ++moving_count_;
      if (generation.state() == State::kRunning) return absl::InternalError("runs and moves");
    }
    return FirstError({
        ExpectEqual("has blocks of the device", uses_device, !kv.blocks.empty()),
        Expect(kv.kept_count == 0 || (kv.tier == KvTier::kHost && kv.kept_count < count),
               "is on the device and elsewhere, and has nothing on the host"),
        Expect(kv.tier != KvTier::kHost || kv.move_to == KvTier::kDevice ||
                   kv.kept_count == static_cast<int64_t>(kv.blocks.size()),
               "holds more of the device than has stayed there"),
        Expect(kv.arriving_count == 0 || kv.move_to == KvTier::kHost, "waits for KV to arrive, and none is on its way"),
        ExpectEqual("blocks of the host", on_host + kv.arriving_count, static_cast<int64_t>(kv.host_blocks.size())),
        Expect(kv.tier != KvTier::kDisk || (kv.has_file && kv.file_block_count == count),
               "is on disk without its file"),
        Expect(kv.has_file || kv.file_block_count == 0, "has blocks in no file"),
        Expect(generation.state() == State::kPaused || generation.wanted_tier == KvTier::kNone,
               "is sent away and not paused"),
    });
  }

  // What generations have left to moves, and that every move has one.
  absl::Status CheckMoves() {
    int64_t leaving = 0;
    int64_t to_disk = 0;
    for (const auto& [id, record] : state_.moves) {
      leaving += record.freeing_count;
      if (record.to == KvTier::kDisk) to_disk += record.block_count;
      if (record.generation != nullptr) {
        --moving_count_;
        continue;
      }
      left_count_ += static_cast<int64_t>(record.left.blocks.size() - record.left.shared.size());
      left_host_count_ += static_cast<int64_t>(record.left.host_blocks.size());
      for (size_t i = 0; i < record.left.blocks.size(); ++i) {
        const BlockId block = record.left.blocks[i];
        if (i < record.left.shared.size()) {
          ++holders_[{record.left.shared[i], record.left_use}];
          if (!block_is_held_[Value(block)]) ++shared_count_;
        } else if (block_is_held_[Value(block)] || state_.pool.IsFree(block)) {
          return absl::InternalError("a move has a block that is not its own");
        }
        block_is_held_[Value(block)] = true;
      }
    }
    return FirstError({
        ExpectEqual("moves", 0, moving_count_),
        ExpectEqual("blocks that leave", leaving, state_.leaving_block_count),
        ExpectEqual("blocks on disk", file_block_count_ + to_disk, state_.disk_used_count),
        ExpectEqual("free blocks of the host",
                    state_.host_pool.block_count() - static_cast<int64_t>(host_blocks_.size()) - left_host_count_,
                    state_.host_pool.free_count()),
        ExpectEqual("blocks left to moves", left_count_, state_.counters.device.moving_count),
        ExpectEqual("blocks of the host left to moves", left_host_count_, state_.counters.host.moving_count),
    });
  }

  absl::Status CheckHoldsAndTimers(const Generation& generation) {
    const PauseInfo& pause = generation.pause;
    const Timer timeout = {generation.deadline, generation.key, TimerKind::kTimeout};
    const Timer lease = {pause.lease_expire_time, generation.key, TimerKind::kLease};
    const Timer disconnect = {pause.disconnect_expire_time, generation.key, TimerKind::kDisconnectLease};
    const bool has_timeout = generation.live() && timeout.time != absl::InfiniteFuture();
    const bool has_lease = pause.by_control && lease.time != absl::InfiniteFuture();
    const bool has_disconnect = pause.by_disconnect && disconnect.time != absl::InfiniteFuture();
    const Timer aging = {generation.aging_time, generation.key, TimerKind::kAging};
    const bool has_aging = aging.time != absl::InfiniteFuture();
    const bool in_session = !pause.session_id.empty();
    timer_count_ += has_timeout + has_lease + has_disconnect + has_aging;
    session_hold_count_ += in_session;
    return FirstError({
        Expect((generation.state() == State::kPaused) == (pause.by_control || pause.by_disconnect),
               "its holds do not agree with its state"),
        ExpectEqual("timeouts", has_timeout, state_.timers.Contains(timeout)),
        ExpectEqual("leases", has_lease, state_.timers.Contains(lease)),
        ExpectEqual("aging", has_aging, state_.timers.Contains(aging)),
        ExpectEqual("disconnect leases", has_disconnect, state_.timers.Contains(disconnect)),
        Expect(pause.by_control || !in_session, "is in a session and not held by it"),
        ExpectEqual("holds in its session", in_session, state_.sessions.Holds(pause.session_id, generation.key)),
    });
  }

  absl::Status CheckTotals() const {
    const EngineInfo& counters = state_.counters;
    const int64_t held = blocks(State::kRunning) + blocks(State::kPreempted) + blocks(State::kPaused) + left_count_;
    for (int i = 0; i < kGenerationStateCount; ++i) {
      const absl::Status result =
          ExpectEqual(absl::StrCat(Name(static_cast<State>(i))), count_[i], counters.count_by_state[i]);
      if (!result.ok()) return result;
    }
    return FirstError({
        ExpectEqual("those that wait", waiting_count_, state_.waiting_count),
        CheckClasses(),
        ExpectEqual("queue of RUNNING", count(State::kRunning), state_.running.size()),
        ExpectEqual("finished ones kept", count(State::kFinished), state_.table.finished_count()),
        ExpectEqual("blocks of RUNNING", blocks(State::kRunning), counters.device.running_count),
        ExpectEqual("blocks of PREEMPTED", blocks(State::kPreempted), counters.device.preempted_count),
        ExpectEqual("blocks of PAUSED", blocks(State::kPaused), counters.device.paused_count),
        ExpectEqual("free blocks", state_.pool.block_count() - held - state_.cache.size(), state_.pool.free_count()),
        CheckShared(),
        ExpectEqual("timers", timer_count_, state_.timers.size()),
        ExpectEqual("holds of sessions", session_hold_count_, state_.sessions.hold_count()),
        Expect(count(State::kRunning) <= state_.options.max_running, "more than --max_running run"),
        Expect(state_.live_count() <= state_.options.max_live, "more than --max_live live"),
        Expect(count(State::kFinished) <= state_.options.max_finished, "more than --max_finished are kept"),
    });
  }

  absl::Status CheckShared() const {
    for (const auto& [node_and_use, count] : holders_) {
      const absl::Status result = ExpectEqual("holders of a shared block", count,
                                              state_.cache.holder_count(node_and_use.first, node_and_use.second));
      if (!result.ok()) return result;
    }
    int64_t used = 0;
    for (const KvUse use : {KvUse::kRunning, KvUse::kWaiting, KvUse::kPaused}) used += state_.cache.count(use);
    return FirstError({
        ExpectEqual("shared blocks", shared_count_, used),
        ExpectEqual("cached blocks", used + state_.cache.unused_count(), state_.cache.size()),
    });
  }

  absl::Status CheckClasses() const {
    int64_t lacking = 0;
    int64_t ready = 0;
    int64_t parked = 0;
    int64_t used_slots = 0;  // or kept for those that have reserved them
    for (size_t i = 0; i < classes_.size(); ++i) {
      const ClassState& kept = state_.classes[i];
      const bool configured = i < state_.options.classes.size();
      const TrafficClass limits = configured ? state_.options.classes[i] : TrafficClass();
      lacking += kept.lacking.size();
      ready += kept.ready.size();
      parked += kept.parked.size();
      used_slots += std::max<int64_t>(kept.running_count, limits.reserved);
      const absl::Status result = FirstError({
          ExpectEqual("QUEUED of a class", classes_[i].queued_count, kept.queued_count),
          ExpectEqual("RUNNING of a class", classes_[i].running_count, kept.running_count),
          ExpectEqual("those of a class that stand still", classes_[i].stalled_count, kept.stalled_count),
          ExpectEqual("blocks of a class", classes_[i].block_count, kept.block_count),
          Expect(kept.running_count <= limits.max_running, "more of a class run than its max_running"),
      });
      if (!result.ok()) return result;
    }
    return FirstError({
        ExpectEqual("queues of those that lack blocks", lacking_count_, lacking),
        ExpectEqual("queues of those that wait", stays_count_, lacking + ready),
        ExpectEqual("queues of those that are parked", parked_count_, parked),
        ExpectEqual("those that stand still", stalled_count_, state_.stalled_count),
        ExpectEqual("queue of those that return", returning_count_, state_.returning.size()),
        ExpectEqual("queue of holders", holder_count_, state_.waiting_holders.size()),
        ExpectEqual("those that rest", resting_count_, SizeOf(state_.resting_by_tier)),
        ExpectEqual("those that are sent away", wanting_count_, SizeOf(state_.wanting_by_tier)),
        Expect(used_slots <= state_.options.max_running, "slots are used that are reserved"),
    });
  }

  int64_t count(State s) const { return count_[static_cast<int>(s)]; }
  int64_t blocks(State s) const { return blocks_[static_cast<int>(s)]; }

  const EngineState& state_;
  const bool step_is_prepared_;
  std::vector<bool> block_is_held_;
  int64_t count_[kGenerationStateCount] = {};
  int64_t blocks_[kGenerationStateCount] = {};
  int64_t timer_count_ = 0;
  std::vector<ClassState> classes_ = std::vector<ClassState>(state_.classes.size());
  std::map<std::pair<PrefixCache::NodeId, KvUse>, int32_t> holders_;
  int64_t shared_count_ = 0;
  int64_t stalled_count_ = 0;
  int64_t lacking_count_ = 0;
  int64_t waiting_count_ = 0;
  int64_t stays_count_ = 0;
  int64_t parked_count_ = 0;
  int64_t returning_count_ = 0;
  int64_t holder_count_ = 0;
  int64_t resting_count_ = 0;
  int64_t wanting_count_ = 0;
  int64_t moving_count_ = 0;
  int64_t left_count_ = 0;
  int64_t left_host_count_ = 0;
  int64_t file_block_count_ = 0;
  std::set<BlockId> host_blocks_;
  int64_t session_hold_count_ = 0;
};

}  // namespace

absl::Status CheckInvariants(const EngineState& state, bool step_is_prepared) {
  return Recount(state, step_is_prepared).Run();
}

}  // namespace fermata
