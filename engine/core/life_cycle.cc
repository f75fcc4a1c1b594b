#include "engine/core/life_cycle.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/check.h"

namespace fermata {
namespace {

using State = GenerationState;

Timer TimeoutOf(const Generation& generation) { return {generation.deadline, generation.key, TimerKind::kTimeout}; }

Timer LeaseOf(const Generation& generation) {
  return {generation.pause.lease_expire_time, generation.key, TimerKind::kLease};
}

Timer AgingOf(const Generation& generation) { return {generation.aging_time, generation.key, TimerKind::kAging}; }

bool Waits(State state) { return state == State::kQueued || state == State::kPreempted; }

Timer DisconnectLeaseOf(const Generation& generation) {
  return {generation.pause.disconnect_expire_time, generation.key, TimerKind::kDisconnectLease};
}

}  // namespace

void LifeCycle::Begin(Generation& generation, const std::optional<ControlHold>& hold) {
  generation.create_time = state_.journal.now();
  generation.deadline = generation.create_time + generation.spec.timeout;
  generation.order = OrderOf(generation);
  generation.class_index = state_.options.ClassIndex(generation.spec.traffic_class);
  state_.timers.Set(TimeoutOf(generation));
  if (hold.has_value()) SetControlHold(generation, *hold);
  Transition(generation, {hold.has_value() ? State::kPaused : State::kQueued, Cause::kEnqueue});
}

void LifeCycle::Admit(Generation& generation) {
  Transition(generation, {State::kRunning, Cause::kScheduler});
  residency_.ReserveBlocks(generation);
}

void LifeCycle::Displace(Generation& generation) { Transition(generation, {State::kPreempted, Cause::kScheduler}); }

void LifeCycle::Drop(Generation& generation) {
  if (generation.state() == State::kRunning) Displace(generation);
  KvMoved event = {.from = generation.kv.tier, .to = KvTier::kNone};
  event.block_count = state_.BlockCountFor(generation.computed_token_count);
  residency_.Drop(generation);
  event.kv_blocks = generation.kv_block_counts();
  state_.journal.Record(generation, std::move(event));
}

void LifeCycle::Trim(Generation& generation, int64_t keep) {
  residency_.Trim(generation, keep);
  state_.journal.Record(generation, Progress{.key = generation.key, .kv_blocks = generation.kv_block_counts()});
}

void LifeCycle::HoldByControl(Generation& generation, const ControlHold& hold) {
  FERMATA_CHECK(generation.live());
  if (generation.pause.by_control) {
    if (hold.lease.duration != absl::InfiniteDuration()) SetLease(generation, hold.lease);
    return;
  }
  SetControlHold(generation, hold);
  if (generation.state() != State::kPaused) Transition(generation, {State::kPaused, Cause::kPreempt});
}

void LifeCycle::SetControlHold(Generation& generation, const ControlHold& hold) {
  generation.pause.by_control = true;
  generation.pause.reason = hold.reason;
  generation.pause.session_id = hold.session_id;
  if (!hold.session_id.empty()) {
    state_.sessions.AddHold(hold.session_id, generation.key);
    generation.pause.session_ttl = state_.sessions.ttl(hold.session_id);
  }
  SetLease(generation, hold.lease);
}

void LifeCycle::SetLease(Generation& generation, const Lease& lease) {
  state_.timers.Cancel(LeaseOf(generation));
  generation.pause.lease_duration = lease.duration;
  generation.pause.lease_expire_time = state_.journal.now() + lease.duration;
  generation.pause.on_lease_expiry = lease.on_expiry;
  state_.timers.Set(LeaseOf(generation));
}

void LifeCycle::DropControlHold(Generation& generation) {
  PauseInfo& pause = generation.pause;
  state_.timers.Cancel(LeaseOf(generation));
  if (!pause.session_id.empty()) state_.sessions.RemoveHold(pause.session_id, generation.key);
  pause = {.by_disconnect = pause.by_disconnect, .disconnect_expire_time = pause.disconnect_expire_time};
}

void LifeCycle::EndControlHold(Generation& generation, Cause cause) {
  FERMATA_CHECK(generation.pause.by_control);
  if (generation.pause.on_lease_expiry == OnLeaseExpiry::kAbort) {
    Finish(generation, FinishReason::kAborted, cause,
           cause == Cause::kLease ? "the lease of its pause has ended"
                                  : absl::StrCat("session \"", generation.pause.session_id, "\" has ended"));
    return;
  }
  if (generation.held_finish != FinishReason::kNone) {
    // Nobody has given it more: it ends as it would have.
    Finish(generation, generation.held_finish, cause, "");
    return;
  }
  DropControlHold(generation);
  if (!generation.pause.by_disconnect) Resume(generation, cause);
}

void LifeCycle::HoldByDisconnect(Generation& generation) {
  FERMATA_CHECK(generation.live());
  if (generation.pause.by_disconnect) return;
  generation.pause.by_disconnect = true;
  generation.pause.disconnect_expire_time = state_.journal.now() + state_.options.disconnect_lease;
  state_.timers.Set(DisconnectLeaseOf(generation));
  if (generation.state() != State::kPaused) Transition(generation, {State::kPaused, Cause::kDisconnect});
}

void LifeCycle::ReleaseHolds(Generation& generation, Cause cause) {
  if (generation.state() != State::kPaused) return;
  DropDisconnectHold(generation);
  DropControlHold(generation);
  generation.held_finish = FinishReason::kNone;
  Resume(generation, cause);
}

void LifeCycle::ReleaseDisconnectHold(Generation& generation, Cause cause) {
  if (!generation.pause.by_disconnect) return;
  DropDisconnectHold(generation);
  if (!generation.pause.by_control) Resume(generation, cause);
}

void LifeCycle::DropDisconnectHold(Generation& generation) {
  state_.timers.Cancel(DisconnectLeaseOf(generation));
  generation.pause.by_disconnect = false;
  generation.pause.disconnect_expire_time = absl::InfiniteFuture();
}

void LifeCycle::Resume(Generation& generation, Cause cause) {
  // Whoever was admitted has computed something by the time it can be paused, so it is QUEUED exactly if it has no KV.
  const bool has_kv = generation.computed_token_count > 0;
  Transition(generation, {has_kv ? State::kPreempted : State::kQueued, cause});
}

void LifeCycle::SetPriority(Generation& generation, int32_t priority) {
  FERMATA_CHECK(generation.live());
  if (generation.spec.priority == priority) return;
  residency_.Reorder(generation, [&] {
    generation.spec.priority = priority;
    generation.order = OrderOf(generation);
  });
  state_.journal.Record(generation, PriorityChanged{generation.key, priority});
}

void LifeCycle::End(Generation& generation, FinishReason reason) {
  const Cause cause = reason == FinishReason::kStop ? Cause::kStop : Cause::kLength;
  if (!generation.spec.hold_on_stop) return Finish(generation, reason, cause, "");
  // Its text is complete: what comes after a Continue is a text of its own.
  generation.text.reset();
  generation.text_begins.push_back(generation.output_token_count);
  generation.held_finish = reason;
  const absl::string_view name = Name(cause);
  SetControlHold(generation, {.reason = std::string(name.data(), name.size())});
  Transition(generation, {State::kPaused, cause});
}

void LifeCycle::Append(Generation& generation, absl::Span<const TokenId> tokens, const std::string& append_id) {
  FERMATA_CHECK(generation.state() == State::kPaused);
  const int32_t begin = static_cast<int32_t>(generation.context.size());
  generation.context.insert(generation.context.end(), tokens.begin(), tokens.end());
  generation.appended.push_back({begin, static_cast<int32_t>(generation.context.size())});
  generation.appended_token_count += static_cast<int32_t>(tokens.size());
  generation.append_id = append_id;
}

void LifeCycle::SendTo(Generation& generation, KvTier tier) {
  FERMATA_CHECK(generation.state() == State::kPaused);
  const bool is_there = generation.kv.rests_on(tier);
  residency_.Change(generation, [&] { generation.wanted_tier = is_there ? KvTier::kNone : tier; });
}

void LifeCycle::Restore(Generation& generation, const ControlHold& hold, int64_t block_count) {
  residency_.AdoptFile(generation, block_count);
  generation.deadline = generation.create_time + generation.spec.timeout;
  generation.order = OrderOf(generation);
  generation.class_index = state_.options.ClassIndex(generation.spec.traffic_class);
  state_.timers.Set(TimeoutOf(generation));
  SetControlHold(generation, hold);
  Transition(generation, {State::kPaused, Cause::kRestore});
}

void LifeCycle::SetMaxTokens(Generation& generation, int32_t max_tokens) {
  FERMATA_CHECK(generation.state() == State::kPaused);
  generation.spec.sampling.max_tokens = max_tokens;
}

void LifeCycle::Finish(Generation& generation, FinishReason reason, Cause cause, std::string message) {
  FERMATA_CHECK(generation.live());
  if (generation.text.has_value()) {
    TextReleased released{generation.key, ""};
    generation.text->Flush(&released.text);
    if (!released.text.empty()) state_.journal.Record(generation, std::move(released));
  }
  state_.timers.Cancel(TimeoutOf(generation));
  DropDisconnectHold(generation);
  DropControlHold(generation);
  Transition(generation, {State::kFinished, cause, reason, std::move(message)});
  // Many finished ones are kept, for what GetGeneration shows of them: nothing that is large.
  generation.text.reset();
  generation.context = {};
  generation.appended = {};
  generation.text_begins = {};
  generation.spec.sampling = SamplingParams();
  state_.table.Retire(generation);
}

void LifeCycle::Transition(Generation& generation, Move move) {
  LifeRecord& life = generation.life;
  const State from = life.state_;
  FERMATA_CHECK(IsLegalTransition(from, move.to));
  residency_.Change(generation, [&] {
    life.state_ = move.to;
    life.finish_reason_ = move.reason;
    life.error_message_ = std::move(move.message);
    generation.stalled = false;
    // What it has gained stays while it runs: else whom it has overtaken would displace it at once.
    SetAging(generation, move.to == State::kRunning ? generation.aged_levels : 0);
    if (move.to == State::kPaused) generation.rest_tick = state_.next_rest_tick++;
    if (from == State::kPaused) generation.wanted_tier = KvTier::kNone;
  });
  UpdateRecord(life, from);
  UpdateCounters(generation, from);
  if (move.to == State::kFinished) {
    residency_.ReleaseAll(generation, UseOf(from));
  } else {
    residency_.MoveShared(generation, UseOf(from), UseOf(move.to));
    // It is wanted where it is.
    if (from == State::kPaused) residency_.CancelMove(generation);
  }
  // Last, because the event may carry a copy of all of the above.
  state_.journal.RecordStateChange(generation, from, move.cause);
}

void LifeCycle::UpdateRecord(LifeRecord& life, State from) {
  const absl::Time now = state_.journal.now();
  if (absl::Duration* duration = life.DurationOf(from)) *duration += now - life.since_;
  life.since_ = now;
  life.step_ = state_.journal.step();
  switch (life.state_) {
    case State::kRunning:
      if (life.start_time_ == absl::InfinitePast()) life.start_time_ = now;
      break;
    case State::kPreempted:
      // Coming from a pause it is not displaced, it only waits.
      if (from == State::kRunning) ++life.preemption_count_;
      break;
    case State::kPaused:
      ++life.pause_count_;
      break;
    case State::kFinished:
      life.finish_time_ = now;
      break;
    case State::kNone:
    case State::kQueued:
      break;
  }
}

void LifeCycle::UpdateCounters(const Generation& generation, State from) {
  const State to = generation.state();
  if (from != State::kNone) --state_.count(from);
  ++state_.count(to);
  if (to == State::kFinished) ++state_.counters.finished_total;
  if (to == State::kPreempted && from == State::kRunning) ++state_.counters.preemption_total;
  if (to == State::kPaused) ++state_.counters.pause_total;
}

void LifeCycle::SetAging(Generation& generation, int32_t levels) {
  if (state_.options.aging == absl::InfiniteDuration()) return;
  state_.timers.Cancel(AgingOf(generation));
  generation.aged_levels = levels;
  const bool goes_on = Waits(generation.state()) && levels < state_.options.aging_levels;
  generation.aging_time = goes_on ? state_.journal.now() + state_.options.aging : absl::InfiniteFuture();
  state_.timers.Set(AgingOf(generation));
  generation.order = OrderOf(generation);
}

void LifeCycle::Age(Generation& generation) {
  FERMATA_CHECK(Waits(generation.state()));
  residency_.Reorder(generation, [&] { SetAging(generation, generation.aged_levels + 1); });
}

OrderKey LifeCycle::OrderOf(const Generation& generation) const {
  if (state_.options.policy != SchedulePolicy::kPriority) return {0, generation.key};
  // In 64 bits: a priority may be the least that there is.
  const int64_t aged = int64_t{generation.spec.priority} - generation.aged_levels;
  constexpr int64_t kMostUrgent = std::numeric_limits<int32_t>::min();
  return {static_cast<int32_t>(std::max(aged, kMostUrgent)), generation.key};
}

}  // namespace fermata
