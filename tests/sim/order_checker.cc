#include "tests/sim/order_checker.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"

namespace fermata {

OrderChecker::OrderChecker(const EngineOptions& options, const ObservedGenerations& generations,
                           const std::map<GenerationKey, int64_t>& shares, const std::set<GenerationKey>& displaced,
                           Violations& violations)
    : options_(options), generations_(generations), shares_(shares), displaced_(displaced), violations_(violations) {}

void OrderChecker::Check() {
  Classify();
  CheckBudgets();
  CheckDisplaced();
  CheckShares();
  CheckWaiting();
}

void OrderChecker::Classify() {
  free_blocks_ = options_.block_count;
  tokens_left_ = options_.step_tokens;
  for (const auto& [key, generation] : generations_) {
    const auto share = shares_.find(key);
    Entry entry = {&generation, generation.PlaceIn(options_), share == shares_.end() ? 0 : share->second, 0};
    free_blocks_ -= generation.block_count;
    tokens_left_ -= entry.share;
    switch (generation.state) {
      case GenerationState::kRunning:
        (displaced_.count(key) > 0 ? victims_ : kept_).push_back(entry);
        if (displaced_.count(key) > 0 && entry.share > 0) violations_.Add(key, "is displaced and runs");
        break;
      case GenerationState::kQueued:
      case GenerationState::kPreempted:
        entry.missing_blocks =
            std::max<int64_t>(0, generation.BlockCountNeeded(options_.block_tokens) - generation.block_count -
                                     // In its favour: it is not said to take a block that it may have had.
                                     (entry.share > 0 && generation.may_hold_more ? 1 : 0));
        (entry.share > 0 ? admitted_ : waiting_).push_back(entry);
        if (entry.share > 0) free_blocks_ -= entry.missing_blocks;
        break;
      case GenerationState::kNone:
      case GenerationState::kPaused:
      case GenerationState::kFinished:
        if (entry.share > 0) violations_.Add(key, absl::StrCat("runs while ", Name(generation.state)));
        break;
    }
  }
  for (std::vector<Entry>* list : {&kept_, &admitted_, &waiting_, &victims_}) {
    std::sort(list->begin(), list->end(), [](const Entry& a, const Entry& b) { return a.place < b.place; });
  }
}

void OrderChecker::CheckBudgets() {
  if (tokens_left_ < 0) violations_.Add(absl::StrCat(-tokens_left_, " tokens more than --step_tokens"));
  if (free_blocks_ < 0) violations_.Add(absl::StrCat(-free_blocks_, " blocks more than the pool has"));
  const int64_t running = static_cast<int64_t>(kept_.size() + admitted_.size());
  if (running > options_.max_running) violations_.Add(absl::StrCat(running, " run; more than --max_running"));
}

void OrderChecker::CheckDisplaced() {
  const int64_t running_before = static_cast<int64_t>(kept_.size() + victims_.size());
  const int64_t needed =
      std::max<int64_t>(0, running_before + static_cast<int64_t>(admitted_.size()) - options_.max_running);
  const int64_t count = static_cast<int64_t>(victims_.size());
  if (count != needed) violations_.Add(absl::StrCat(count, " are displaced, ", needed, " are needed"));
  if (count == 0) return;
  if (options_.displacement == Displacement::kNever) violations_.Add("displaced against --displacement=never");
  if (!kept_.empty() && victims_.front().place < kept_.back().place) {
    violations_.Add(victims_.front().generation->key, "is displaced before a less urgent one");
  }
  // The most urgent newcomers take the free slots. Of the others each needs a victim, the least urgent first.
  const int64_t first = static_cast<int64_t>(admitted_.size()) - count;
  for (int64_t i = std::max<int64_t>(0, -first); i < count; ++i) {
    const Entry& victim = victims_[count - 1 - i];
    if (victim.place.priority > admitted_[first + i].place.priority) continue;
    violations_.Add(victim.generation->key, "is displaced for one that is not strictly more urgent");
  }
}

bool OrderChecker::IsAheadForTokens(const Entry& a, const Entry& b) {
  const auto rank = [](const Entry& e) {
    return std::make_tuple(e.place.priority, !e.generation->decoding(), e.place.arrival);
  };
  return rank(a) < rank(b);
}

void OrderChecker::CheckShares() {
  for (const std::vector<Entry>* list : {&kept_, &admitted_}) {
    for (const Entry& entry : *list) {
      const int64_t pending = entry.generation->pending_token_count();
      if (entry.share > 0 && entry.generation->stalled) {
        violations_.Add(entry.generation->key, "runs without a block for its next token");
      }
      if (entry.generation->stalled) continue;
      if (entry.share > pending) violations_.Add(entry.generation->key, "computes tokens that it does not have");
      if (entry.share >= pending) continue;
      if (tokens_left_ > 0) violations_.Add(entry.generation->key, "could use tokens that are left over");
      for (const std::vector<Entry>* others : {&kept_, &admitted_}) {
        for (const Entry& other : *others) {
          if (other.share == 0 || !IsAheadForTokens(entry, other)) continue;
          violations_.Add(entry.generation->key, "lacks tokens that one behind it gets");
        }
      }
    }
  }
}

void OrderChecker::CheckWaiting() {
  bool blocks_are_kept = false;  // for one ahead that lacks them
  int64_t kept_blocks = 0;
  int64_t used_slots = 0;
  for (const Entry& entry : waiting_) {
    if (entry.missing_blocks > 0) {
      for (const Entry& other : admitted_) {
        if (other.missing_blocks == 0 || !(entry.place < other.place)) continue;
        // Where tokens are short, a decode comes before a prefill of the same priority.
        if (tokens_left_ == 0 && IsAheadForTokens(other, entry)) continue;
        violations_.Add(entry.generation->key, "waits for blocks and is overtaken to them");
      }
      if (blocks_are_kept || entry.missing_blocks > free_blocks_ - kept_blocks) {
        blocks_are_kept = true;
        continue;
      }
      // It lacks tokens alone, and nobody overtakes it to its blocks meanwhile.
      if (tokens_left_ == 0) kept_blocks += entry.missing_blocks;
    }
    CheckPassedOver(entry, &used_slots);
  }
}

void OrderChecker::CheckPassedOver(const Entry& waiting, int64_t* used_slots) {
  int64_t slots = options_.max_running - static_cast<int64_t>(kept_.size() + admitted_.size());
  if (options_.displacement == Displacement::kRunning) {
    for (const std::vector<Entry>* list : {&kept_, &admitted_}) {
      slots += std::count_if(list->begin(), list->end(),
                             [&](const Entry& other) { return other.place.priority > waiting.place.priority; });
    }
  }
  const bool has_slot = *used_slots < slots;
  if (has_slot) ++*used_slots;
  if (has_slot && tokens_left_ > 0) violations_.Add(waiting.generation->key, "waits while it could run");
  for (const Entry& other : kept_) {
    if (!has_slot || other.share == 0 || !IsAheadForTokens(waiting, other)) continue;
    violations_.Add(waiting.generation->key, "waits while one behind it runs");
  }
  for (const Entry& other : admitted_) {
    const bool slot_went_behind = waiting.place < other.place;
    if (!(slot_went_behind || has_slot) || !IsAheadForTokens(waiting, other)) continue;
    violations_.Add(waiting.generation->key, "waits while one behind it is admitted");
  }
}

}  // namespace fermata
