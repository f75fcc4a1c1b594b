#include "engine/core/schedule_policy.h"

#include <algorithm>

#include "engine/core/check.h"

namespace fermata {
namespace {

// One that will have a slot unless the token budget ends before it.
struct Contender {
  const Candidate* candidate;
  bool waiting;
  int32_t index;
};

// Counts, from the least urgent, running ones that `order` may displace.
int64_t DisplaceableCount(absl::Span<const Candidate> running, const Budget& budget, const OrderKey& order) {
  if (budget.displacement == Displacement::kNever) return 0;
  int64_t count = 0;
  for (auto it = running.rbegin(); it != running.rend() && it->order.priority > order.priority; ++it) ++count;
  return count;
}

// The waiting ones that slots and blocks suffice for.
std::vector<Contender> SelectWaiting(const View& view, const Budget& budget) {
  std::vector<Contender> selected;
  int64_t free_slots = budget.slot_count - static_cast<int64_t>(view.running.size());
  int64_t free_blocks = budget.free_block_count;
  auto victim = view.running.rbegin();
  bool blocks_are_kept = false;  // a more urgent one waits for blocks
  for (size_t i = 0; i < view.waiting.size(); ++i) {
    const Candidate& candidate = view.waiting[i];
    if (candidate.missing_block_count > 0 && (blocks_are_kept || candidate.missing_block_count > free_blocks)) {
      blocks_are_kept = true;
      continue;  // those behind that have their blocks may still start
    }
    if (free_slots > 0) {
      --free_slots;
    } else if (budget.displacement == Displacement::kRunning && victim != view.running.rend() &&
               victim->order.priority > candidate.order.priority) {
      ++victim;
    } else {
      break;  // those behind are no more urgent: they cannot displace either
    }
    free_blocks -= candidate.missing_block_count;
    selected.push_back({&candidate, /*waiting=*/true, static_cast<int32_t>(i)});
  }
  return selected;
}

int64_t VictimCount(const View& view, const Budget& budget, size_t admitted) {
  return std::max<int64_t>(0, static_cast<int64_t>(view.running.size() + admitted) - budget.slot_count);
}

// Running ones, without the last `victim_count`, and selected ones, in one order.
std::vector<Contender> Join(const View& view, int64_t victim_count, const std::vector<Contender>& selected) {
  std::vector<Contender> joined;
  const size_t keeper_count = view.running.size() - victim_count;
  joined.reserve(keeper_count + selected.size());
  auto next = selected.begin();
  for (size_t i = 0; i < keeper_count; ++i) {
    const Candidate& keeper = view.running[i];
    while (next != selected.end() && next->candidate->order < keeper.order) joined.push_back(*next++);
    joined.push_back({&keeper, /*waiting=*/false, static_cast<int32_t>(i)});
  }
  joined.insert(joined.end(), next, selected.end());
  return joined;
}

// Gives the token budget out: level by level of priority, decodes before prefills.
std::vector<Share> ShareTokens(const std::vector<Contender>& joined, int64_t token_count) {
  std::vector<Share> shares;
  shares.reserve(joined.size());
  for (auto level = joined.begin(); level != joined.end() && token_count > 0;) {
    const int32_t priority = level->candidate->order.priority;
    const auto level_end = std::find_if(
        level, joined.end(), [priority](const Contender& c) { return c.candidate->order.priority != priority; });
    for (const bool decoding : {true, false}) {
      for (auto it = level; it != level_end && token_count > 0; ++it) {
        if (it->candidate->decoding != decoding) continue;
        const int64_t granted = std::min<int64_t>(it->candidate->pending_token_count, token_count);
        shares.push_back({it->waiting, it->index, static_cast<int32_t>(granted)});
        token_count -= granted;
      }
    }
    level = level_end;
  }
  return shares;
}

}  // namespace

Plan Decide(const View& view, const Budget& budget) {
  FERMATA_CHECK(static_cast<int64_t>(view.running.size()) <= budget.slot_count);
  const std::vector<Contender> selected = SelectWaiting(view, budget);
  Plan plan;
  plan.shares = ShareTokens(Join(view, VictimCount(view, budget, selected.size()), selected), budget.token_count);
  // Those that got no token are not admitted after all, and need no victim. What they would have displaced is less
  // urgent than they are, so the budget had ended before it too: nothing else changes.
  const size_t admitted =
      std::count_if(plan.shares.begin(), plan.shares.end(), [](const Share& share) { return share.waiting; });
  const int32_t running_count = static_cast<int32_t>(view.running.size());
  const int64_t victim_count = VictimCount(view, budget, admitted);
  for (int32_t n = 1; n <= victim_count; ++n) plan.displaced.push_back(running_count - n);
  return plan;
}

int64_t WaitingLimit(absl::Span<const Candidate> running, const Budget& budget, const OrderKey& head) {
  const int64_t free_slots = budget.slot_count - static_cast<int64_t>(running.size());
  return free_slots + DisplaceableCount(running, budget, head);
}

}  // namespace fermata
