#include "tests/sim/joint_order_checker.h"

#include <algorithm>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace fermata {

using State = GenerationState;

BoundaryVictims::BoundaryVictims(const Report& report, const ObservedGenerations& generations) {
  for (const Event& event : report.events) {
    const auto* change = std::get_if<StateChanged>(&event);
    const auto* moved = std::get_if<KvMoved>(&event);
    if (change != nullptr && change->from == State::kRunning && change->to == State::kPreempted) {
      displaced.insert(change->key);
    }
    if (moved != nullptr && moved->error.empty() && moved->to == KvTier::kNone) dropped.insert(moved->key);
  }
  for (const KvMove& move : report.moves) {
    if (move.from != KvTier::kDevice) continue;
    for (const auto& [key, one] : generations) {
      if (one.id == move.generation_id && one.state == State::kPreempted) demoted.insert(key);
    }
  }
}

bool JointOrderChecker::IsAhead(const One& a, const One& b) const {
  const Place place_a = a.PlaceIn(options_);
  const Place place_b = b.PlaceIn(options_);
  if (options_.aging == absl::InfiniteDuration()) return place_a < place_b;
  return int64_t{place_a.priority} < int64_t{place_b.priority} - options_.aging_levels;
}

bool JointOrderChecker::IsAheadForTokens(const One& a, const One& b) const {
  if (a.PlaceIn(options_).priority == b.PlaceIn(options_).priority && a.decoding() != b.decoding()) {
    return options_.aging == absl::InfiniteDuration() && a.decoding();
  }
  return IsAhead(a, b);
}

bool JointOrderChecker::LacksBlockToRun(const One& one) const {
  return one.BlockCountToRun(options_.block_tokens) > one.block_count;
}

bool JointOrderChecker::LacksBlocksToStart(const One& one) const {
  const bool is_elsewhere = one.tier == KvTier::kHost || one.tier == KvTier::kDisk;
  return is_elsewhere || one.BlockCountNeeded(options_.block_tokens) > one.block_count;
}

bool JointOrderChecker::SurelyTakesBlocks(const One& one) const {
  const int64_t untold = one.state == State::kPreempted ? 1 : 0;
  return one.BlockCountNeeded(options_.block_tokens) > one.block_count + untold;
}

bool JointOrderChecker::MayGiveWay(const One& victim, bool has_run, const One& wanting,
                                   const BoundaryVictims& victims) const {
  if (&victim == &wanting) return false;
  // With aging anybody may be ahead whom nothing proves to be behind.
  const bool is_ahead = !IsAhead(victim, wanting);
  const bool runs = wanting.state == State::kRunning || victims.displaced.count(wanting.key) > 0;
  if (runs) return is_ahead && LacksBlockToRun(wanting);
  if (wanting.state != State::kQueued && wanting.state != State::kPreempted) return false;
  if (!LacksBlocksToStart(wanting)) return false;
  if (!has_run) return is_ahead;
  // Aging displaces nobody.
  return options_.displacement == Displacement::kRunning &&
         wanting.PlaceIn(options_).priority < victim.PlaceIn(options_).priority;
}

bool JointOrderChecker::EndsStandstill(const One& victim, const One& head) const {
  if (&victim == &head || !IsLive(head.state) || head.state == State::kPaused) return false;
  const bool same_class = !options_.classes.empty() && ClassOf(victim) == ClassOf(head);
  const bool runs = head.state == State::kRunning;
  if (runs ? !LacksBlockToRun(head) : !LacksBlocksToStart(head)) return false;
  // What runs keeps its slot, and goes before what waits.
  if (IsAhead(victim, head) && !runs) return false;
  return std::none_of(generations_.begin(), generations_.end(), [&](const auto& entry) {
    const One& other = entry.second;
    return other.state == State::kRunning && !LacksBlockToRun(other) &&
           (!same_class || ClassOf(other) == ClassOf(head));
  });
}

bool JointOrderChecker::StandsBack(const One& one, const BoundaryVictims& victims) const {
  if (!LacksBlockToRun(one)) return false;
  bool others_ahead = false;
  for (const auto& [key, other] : generations_) {
    if (&other == &one) continue;
    const bool runs = other.state == State::kRunning;
    if (runs && ClassOf(other) == ClassOf(one) && IsAhead(one, other)) return false;
    others_ahead |= (runs || victims.displaced.count(key) > 0) && !IsAhead(one, other);
  }
  return others_ahead;
}

void JointOrderChecker::CheckBoundary(const BoundaryVictims& victims) {
  for (const auto& [key, one] : generations_) {
    const bool was_displaced = victims.displaced.count(key) > 0;
    const bool was_dropped = victims.dropped.count(key) > 0;
    const bool gave_blocks = was_dropped || victims.demoted.count(key) > 0;
    if (!was_displaced && !gave_blocks) continue;
    // Then it only waits, and gives its blocks to whoever is ahead.
    const bool stood_back = was_displaced && StandsBack(one, victims);
    if (!gave_blocks && stood_back) continue;
    const bool is_explained = std::any_of(generations_.begin(), generations_.end(), [&](const auto& entry) {
      const One& other = entry.second;
      if (MayGiveWay(one, was_displaced && !stood_back, other, victims)) return true;
      return was_dropped && EndsStandstill(one, other);
    });
    if (!is_explained) violations_.Add(key, "gives way, and nobody whom it should give way to lacks blocks");
  }
}

void JointOrderChecker::CheckStep(const std::map<GenerationKey, int64_t>& shares,
                                  const std::set<GenerationKey>& displaced) {
  std::vector<const One*> running;
  std::vector<const One*> admitted;
  std::vector<const One*> waiting;
  for (const auto& [key, one] : generations_) {
    const bool has_share = shares.count(key) > 0;
    if (one.state == State::kRunning && displaced.count(key) == 0) running.push_back(&one);
    if (one.state != State::kQueued && one.state != State::kPreempted) continue;
    (has_share ? admitted : waiting).push_back(&one);
    if (has_share) running.push_back(&one);
  }
  CheckClasses(running, admitted);
  for (const One* one : waiting) {
    const int64_t of_its_class = std::count_if(running.begin(), running.end(),
                                               [&](const One* other) { return ClassOf(*other) == ClassOf(*one); });
    CheckPassedOver(*one, admitted, of_its_class);
  }
  for (const One* one : running) {
    const auto share = shares.find(one->key);
    if (one->state != State::kRunning || LacksBlockToRun(*one)) continue;
    if (share != shares.end() && share->second >= one->pending_token_count()) continue;
    for (const One* other : running) {
      if (shares.count(other->key) == 0 || !IsAheadForTokens(*one, *other)) continue;
      violations_.Add(one->key, "lacks tokens that one behind it gets");
    }
  }
  for (const GenerationKey key : displaced) {
    const One& victim = generations_.at(key);
    const bool is_explained = std::any_of(admitted.begin(), admitted.end(), [&](const One* other) {
      return other->PlaceIn(options_).priority < victim.PlaceIn(options_).priority;
    });
    if (!is_explained) violations_.Add(key, "is displaced for one that is not strictly more urgent");
  }
}

void JointOrderChecker::CheckClasses(const std::vector<const One*>& running, const std::vector<const One*>& admitted) {
  int64_t kept_back = 0;
  for (int32_t i = 0; i < static_cast<int32_t>(options_.classes.size()); ++i) {
    const TrafficClass& own = options_.classes[i];
    const int64_t count =
        std::count_if(running.begin(), running.end(), [&](const One* one) { return ClassOf(*one) == i; });
    if (count > own.max_running) violations_.Add(absl::StrCat(count, " of class ", own.name, " run"));
    kept_back += std::max<int64_t>(0, own.reserved - count);
    int64_t blocks = 0;
    for (const One* one : running) {
      if (ClassOf(*one) != i) continue;
      blocks += std::max(one->block_count,
                         one->state == State::kRunning ? int64_t{0} : one->BlockCountNeeded(options_.block_tokens));
    }
    for (const One* one : admitted) {
      if (ClassOf(*one) != i || blocks <= own.max_kv_blocks || !SurelyTakesBlocks(*one)) continue;
      violations_.Add(one->key, "is given blocks beyond the cap of its class");
    }
  }
  if (static_cast<int64_t>(running.size()) + kept_back > options_.max_running) {
    violations_.Add("slots that are reserved for a class are not there");
  }
}

void JointOrderChecker::CheckPassedOver(const One& waiting, const std::vector<const One*>& admitted,
                                        int64_t running_of_its_class) {
  if (moving_.count(waiting.id) > 0 || waiting.tier == KvTier::kHost || waiting.tier == KvTier::kDisk) return;
  const int32_t c = ClassOf(waiting);
  const bool is_configured = c < static_cast<int32_t>(options_.classes.size());
  const bool lacks = LacksBlocksToStart(waiting);
  if (is_configured && lacks && options_.classes[c].max_kv_blocks != TrafficClass::kNoCap) return;
  const bool at_cap = is_configured && running_of_its_class >= options_.classes[c].max_running;
  int64_t reserved = 0;
  for (const TrafficClass& one : options_.classes) reserved += one.reserved;
  for (const One* other : admitted) {
    // It waits for blocks, and this one has its own.
    if (lacks && !SurelyTakesBlocks(*other)) continue;
    if (ClassOf(*other) != c && (at_cap || reserved > 0)) continue;
    if (!IsAhead(waiting, *other) || !IsAheadForTokens(waiting, *other)) continue;
    violations_.Add(waiting.key, "waits while one behind it is admitted");
  }
}

}  // namespace fermata
