#include "engine/core/scheduler.h"

#include <algorithm>
#include <limits>

#include "absl/container/inlined_vector.h"

namespace fermata {

bool Scheduler::HasWork() {
  // What runs and has its block gets a token. So does the first that waits and has its blocks, once a slot is free:
  // with nothing running no class is at its cap of slots, and each may have a slot that is not reserved.
  if (state_.running.size() > state_.stalled_count) return true;
  if (state_.waiting_count == 0) return false;
  ViewRunning();
  const Budget budget = MakeBudget();
  ViewWaiting(WaitingLimit(running_, budget, MostUrgentWaiting()), budget.free_block_count);
  return !Decide({running_, waiting_}, budget).shares.empty();
}

Generation* Scheduler::StandstillVictim() {
  if (!HasWork()) {
    const Generation* head = HeadOf(kAll);
    Generation* victim = head == nullptr ? nullptr : LeastUrgentHolder(kAll, *head);
    if (victim != nullptr) return victim;
  }
  for (int32_t i = 0; i < static_cast<int32_t>(state_.options.classes.size()); ++i) {
    const Generation* head = StuckHead(i);
    if (head != nullptr) return LeastUrgentHolder(i, *head);
  }
  return nullptr;
}

const Generation* Scheduler::StuckHead(int32_t class_index) const {
  const ClassState& own = state_.classes[class_index];
  if (own.running_count > own.stalled_count) return nullptr;
  // Those that have their blocks will run when they find a slot.
  if (own.running_count == 0 && !own.ready.empty()) return nullptr;
  for (const auto& [id, record] : state_.moves) {
    // It has its blocks when it is back, or has given them up when it is gone.
    const Generation* moving = record.generation;
    if (moving != nullptr && moving->class_index == class_index && moving->state() != GenerationState::kPaused)
      return nullptr;
  }
  const Generation* head = HeadOf(class_index);
  return head != nullptr && ClassShortage(*head) > 0 ? head : nullptr;
}

int64_t Scheduler::ClassShortage(const Generation& generation) const {
  const bool runs = generation.state() == GenerationState::kRunning;
  const int64_t need = runs ? state_.GrowthOf(generation) : state_.MissingBlockCount(generation);
  return need - state_.ClassRoom(generation);
}

Generation* Scheduler::HeadOf(int32_t class_index) const {
  Generation* head = nullptr;
  const auto consider = [&](Generation* one) {
    if (head == nullptr || one->order < head->order) head = one;
  };
  for (int32_t i = 0; i < static_cast<int32_t>(state_.classes.size()); ++i) {
    if (class_index != kAll && i != class_index) continue;
    for (const GenerationQueue* queue : {&state_.classes[i].lacking, &state_.classes[i].parked}) {
      if (!queue->empty()) consider(queue->begin()->generation);
    }
  }
  for (const GenerationQueue::Entry& entry : state_.running) {
    if (class_index != kAll && entry.generation->class_index != class_index) continue;
    // What runs is there for its own class before what waits.
    if (class_index != kAll) return entry.generation;
    consider(entry.generation);
    break;
  }
  return head;
}

Generation* Scheduler::LeastUrgentHolder(int32_t class_index, const Generation& head) const {
  Generation* last = nullptr;
  for (const GenerationQueue* queue : {&state_.waiting_holders, &state_.running}) {
    for (auto it = queue->end(); it != queue->begin();) {
      Generation* one = (--it)->generation;
      if (one == &head || (class_index != kAll && one->class_index != class_index)) continue;
      if (last == nullptr || last->order < one->order) last = one;
      break;
    }
  }
  return last;
}

absl::Span<Generation* const> Scheduler::WantBlocks() {
  want_blocks_.clear();
  bool lacking = false;
  for (const ClassState& one : state_.classes) lacking |= !one.lacking.empty() || !one.parked.empty();
  if (!lacking) return want_blocks_;
  ViewRunning();
  if (!state_.returning.empty()) {
    for (const GenerationQueue::Entry& entry : state_.returning) {
      running_.push_back(MakeCandidate(*entry.generation, 0));
    }
    std::sort(running_.begin(), running_.end(),
              [](const Candidate& a, const Candidate& b) { return a.order < b.order; });
  }
  for (Candidate& candidate : running_) candidate.missing_block_count = 0;
  Budget budget = MakeBudget();
  budget.slot_count = std::max(budget.slot_count, static_cast<int64_t>(running_.size()));
  budget.free_block_count = state_.pool.block_count();
  const int64_t limit = WaitingLimit(running_, budget, MostUrgentWaiting());
  if (limit == 0) return want_blocks_;
  ViewWaiting(limit, budget.free_block_count);
  for (Candidate& candidate : waiting_) candidate.parked = false;
  const Plan plan = Decide({running_, waiting_}, budget);
  std::vector<int32_t> admitted;
  for (const Share& share : plan.shares) {
    if (share.waiting && waiting_[share.index].missing_block_count > 0) admitted.push_back(share.index);
  }
  std::sort(admitted.begin(), admitted.end());
  for (const int32_t index : admitted) want_blocks_.push_back(waiting_generations_[index]);
  return want_blocks_;
}

Budget Scheduler::MakeBudget() {
  const EngineOptions& options = state_.options;
  class_budgets_.clear();
  for (size_t i = 0; i < options.classes.size(); ++i) {
    const TrafficClass& one = options.classes[i];
    class_budgets_.push_back({.max_running = one.max_running,
                              .block_count = one.max_kv_blocks - state_.classes[i].block_count,
                              .reserved = one.reserved});
  }
  // The last is for those that are not configured.
  if (!class_budgets_.empty()) class_budgets_.emplace_back();
  return {.slot_count = options.max_running,
          .token_count = options.step_tokens,
          .free_block_count = state_.available_block_count(),
          .displacement = options.displacement,
          .classes = class_budgets_};
}

const Batch& Scheduler::PrepareStep() {
  const Budget budget = MakeBudget();
  ViewRunning();
  ViewWaiting(WaitingLimit(running_, budget, MostUrgentWaiting()), budget.free_block_count);
  const Plan plan = Decide({running_, waiting_}, budget);

  slices_.clear();
  batch_generations_.clear();
  state_.journal.Reserve(plan.shares.size());
  // Victims first: at no time do more run than there are slots.
  for (const int32_t index : plan.displaced) life_cycle_.Displace(*running_generations_[index]);
  for (const Share& share : plan.shares) {
    Generation& generation = *(share.waiting ? waiting_generations_ : running_generations_)[share.index];
    if (share.waiting) life_cycle_.Admit(generation);
    // What a newcomer has found in the prefix cache it need not compute.
    AddSlice(generation, std::min(share.token_count, generation.pending_token_count()));
  }
  batch_ = {.step = state_.journal.step() + 1, .slices = slices_};
  return batch_;
}

void Scheduler::ViewRunning() {
  running_.clear();
  running_generations_.clear();
  for (const GenerationQueue::Entry& entry : state_.running) {
    const Generation& generation = *entry.generation;
    running_.push_back(MakeCandidate(generation, generation.stalled ? state_.GrowthOf(generation) : 0));
    running_generations_.push_back(entry.generation);
  }
}

OrderKey Scheduler::MostUrgentWaiting() const {
  OrderKey first = {std::numeric_limits<int32_t>::max(), GenerationKey{std::numeric_limits<int64_t>::max()}};
  for (const ClassState& one : state_.classes) {
    for (const GenerationQueue* queue : {&one.lacking, &one.ready, &one.parked}) {
      if (!queue->empty() && queue->begin()->order < first) first = queue->begin()->order;
    }
  }
  return first;
}

void Scheduler::ViewWaiting(int64_t limit, int64_t free_block_count) {
  // Each queue of each class has the limit to itself: if those of one class, or those that lack blocks, cannot start,
  // those who can are in another one. So: a merge.
  struct Source {
    GenerationQueue::const_iterator next;
    GenerationQueue::const_iterator end;
    int64_t left;
  };
  absl::InlinedVector<Source, 8> sources;
  for (const ClassState& one : state_.classes) {
    for (const GenerationQueue* queue : {&one.lacking, &one.ready, &one.parked}) {
      if (!queue->empty() && limit > 0) sources.push_back({queue->begin(), queue->end(), limit});
    }
  }
  waiting_.clear();
  waiting_generations_.clear();
  while (!sources.empty()) {
    const auto source = std::min_element(sources.begin(), sources.end(),
                                         [](const Source& a, const Source& b) { return *a.next < *b.next; });
    Generation& generation = *(source->next++)->generation;
    if (--source->left == 0 || source->next == source->end) sources.erase(source);
    // What it will find in the cache matters, and is looked up, only as far as the free blocks go.
    const int64_t cost = free_block_count < 0 ? state_.MissingBlockCount(generation) : state_.AdmissionCost(generation);
    if (cost <= free_block_count || state_.MissingBlockCount(generation) <= state_.ClassRoom(generation)) {
      free_block_count -= cost;
    }
    waiting_.push_back(MakeCandidate(generation, cost));
    waiting_generations_.push_back(&generation);
  }
}

Candidate Scheduler::MakeCandidate(const Generation& generation, int64_t block_cost) const {
  return {
      .order = generation.order,
      .decoding = generation.decoding(),
      .pending_token_count = generation.pending_token_count(),
      .missing_block_count = block_cost,
      .added_block_count = state_.MissingBlockCount(generation),
      .parked = generation.kv.parked(),
      .class_index = state_.options.classes.empty() ? 0 : generation.class_index,
      .aged_levels = generation.aged_levels,
  };
}

void Scheduler::AddSlice(Generation& generation, int32_t token_count) {
  slices_.push_back({
      .key = generation.key,
      .context = generation.context,
      .prompt_token_count = generation.prompt_token_count,
      .appended = generation.appended,
      .first_position = generation.computed_token_count,
      .token_count = token_count,
      .blocks = generation.kv.blocks,
      .sample = token_count == generation.pending_token_count(),
      .sampling = &generation.spec.sampling,
  });
  batch_generations_.push_back(&generation);
}

}  // namespace fermata
