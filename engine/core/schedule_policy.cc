#include "engine/core/schedule_policy.h"

#include <algorithm>
#include <numeric>

#include "engine/core/check.h"

namespace fermata {
namespace {

constexpr int32_t kNobody = -1;

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

// One that is to be admitted, and whose slot it takes.
struct Selected {
  Contender contender;
  int32_t victim = kNobody;  // index into View::running; kNobody: a free slot
};

// Gives slots and blocks to waiting ones, in order.
class Selection {
 public:
  Selection(const View& view, const Budget& budget)
      : view_(view),
        budget_(budget),
        classes_(budget.classes.begin(), budget.classes.end()),
        free_slots_(budget.slot_count - static_cast<int64_t>(view.running.size())),
        free_blocks_(budget.free_block_count),
        is_victim_(view.running.size(), false),
        tail_(static_cast<int32_t>(view.running.size()) - 1) {
    if (classes_.empty()) classes_.emplace_back();
    running_by_class_.resize(classes_.size());
    blocks_are_kept_in_class_.resize(classes_.size());
    for (const Candidate& running : view.running) ++running_by_class_[running.class_index];
  }

  // Takes those of the waiting ones that `considered` names (indices, in order) and that slots and blocks suffice for.
  std::vector<Selected> Take(absl::Span<const int32_t> considered) {
    std::vector<Selected> selected;
    for (const int32_t index : considered) {
      const Candidate& candidate = view_.waiting[index];
      if (!HasBlocks(candidate)) continue;  // those behind that have their blocks may still start
      int32_t victim = kNobody;
      if (!TakeSlot(candidate, &victim)) {
        // Without classes those behind are no more urgent: they find no slot either.
        if (classes_.size() == 1) break;
        continue;
      }
      free_blocks_ -= candidate.missing_block_count;
      classes_[candidate.class_index].block_count -= candidate.added_block_count;
      selected.push_back({{&candidate, /*waiting=*/true, index}, victim});
    }
    return selected;
  }

 private:
  bool HasBlocks(const Candidate& candidate) {
    const int64_t missing = candidate.missing_block_count;
    if (missing == 0) return !candidate.parked;
    const int32_t c = candidate.class_index;
    if (blocks_are_kept_in_class_[c] || candidate.added_block_count > classes_[c].block_count) {
      // Over the cap of its class: it keeps nothing back from other classes.
      blocks_are_kept_in_class_[c] = true;
      return false;
    }
    if (blocks_are_kept_ || missing > free_blocks_) {
      blocks_are_kept_ = true;
      return false;
    }
    return !candidate.parked;
  }

  bool TakeSlot(const Candidate& candidate, int32_t* victim) {
    const int32_t c = candidate.class_index;
    const bool at_cap = running_by_class_[c] >= classes_[c].max_running;
    if (!at_cap && free_slots_ > ReservedForOthers(c)) {
      --free_slots_;
    } else {
      *victim = FindVictim(candidate, /*own_class_only=*/at_cap);
      if (*victim == kNobody) return false;
      is_victim_[*victim] = true;
      --running_by_class_[view_.running[*victim].class_index];
    }
    ++running_by_class_[c];
    return true;
  }

  // Slots that other classes have reserved and do not use.
  int64_t ReservedForOthers(int32_t c) const {
    int64_t count = 0;
    for (size_t other = 0; other < classes_.size(); ++other) {
      if (static_cast<int32_t>(other) == c) continue;
      count += std::max<int64_t>(0, classes_[other].reserved - running_by_class_[other]);
    }
    return count;
  }

  // The least urgent, newest running one that `candidate` may displace.
  int32_t FindVictim(const Candidate& candidate, bool own_class_only) {
    if (budget_.displacement == Displacement::kNever) return kNobody;
    while (tail_ >= 0 && is_victim_[tail_]) --tail_;
    for (int32_t i = tail_; i >= 0; --i) {
      const Candidate& running = view_.running[i];
      if (running.order.priority <= candidate.order.priority + candidate.aged_levels) return kNobody;
      if (is_victim_[i]) continue;
      if (running.class_index == candidate.class_index) return i;
      const bool is_reserved = running_by_class_[running.class_index] <= classes_[running.class_index].reserved;
      if (!own_class_only && !is_reserved) return i;
    }
    return kNobody;
  }

  const View& view_;
  const Budget& budget_;
  std::vector<ClassBudget> classes_;  // what is left of each
  int64_t free_slots_;
  int64_t free_blocks_;
  std::vector<bool> is_victim_;  // by index into View::running
  int32_t tail_;                 // behind it there are only victims
  std::vector<int64_t> running_by_class_;
  std::vector<bool> blocks_are_kept_in_class_;
  bool blocks_are_kept_ = false;  // a more urgent one waits for blocks
};

// Running ones that are nobody's victim, and selected ones, in one order.
std::vector<Contender> Join(const View& view, const std::vector<Selected>& selected) {
  std::vector<bool> is_victim(view.running.size(), false);
  for (const Selected& one : selected) {
    if (one.victim != kNobody) is_victim[one.victim] = true;
  }
  std::vector<Contender> joined;
  joined.reserve(view.running.size() + selected.size());
  auto next = selected.begin();
  for (size_t i = 0; i < view.running.size(); ++i) {
    if (is_victim[i]) continue;
    const Candidate& keeper = view.running[i];
    for (; next != selected.end() && next->contender.candidate->order < keeper.order; ++next) {
      joined.push_back(next->contender);
    }
    joined.push_back({&keeper, /*waiting=*/false, static_cast<int32_t>(i)});
  }
  for (; next != selected.end(); ++next) joined.push_back(next->contender);
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
        if (it->candidate->decoding != decoding || (!it->waiting && it->candidate->missing_block_count > 0)) continue;
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
  std::vector<int32_t> considered(view.waiting.size());
  std::iota(considered.begin(), considered.end(), 0);
  const std::vector<Selected> selected = Selection(view, budget).Take(considered);
  Plan plan;
  plan.shares = ShareTokens(Join(view, selected), budget.token_count);
  // Those that got no token are not admitted after all, and need no victim. What they would have displaced is less
  // urgent than they are, so the budget had ended before it too: nothing else changes but who is displaced.
  considered.clear();
  for (const Share& share : plan.shares) {
    if (share.waiting) considered.push_back(share.index);
  }
  std::sort(considered.begin(), considered.end());
  const std::vector<Selected> admitted = Selection(view, budget).Take(considered);
  FERMATA_CHECK(admitted.size() == considered.size());
  for (const Selected& one : admitted) {
    if (one.victim != kNobody) plan.displaced.push_back(one.victim);
  }
  std::sort(plan.displaced.rbegin(), plan.displaced.rend());
  return plan;
}

int64_t WaitingLimit(absl::Span<const Candidate> running, const Budget& budget, const OrderKey& head) {
  const int64_t free_slots = budget.slot_count - static_cast<int64_t>(running.size());
  return free_slots + DisplaceableCount(running, budget, head);
}

}  // namespace fermata
