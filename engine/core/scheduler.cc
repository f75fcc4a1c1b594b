#include "engine/core/scheduler.h"

#include <algorithm>
#include <limits>

#include "absl/container/inlined_vector.h"

namespace fermata {

bool Scheduler::HasWork() const {
  // What runs always gets a token, and so does the first that has its blocks once a slot is free: with nothing running
  // no class is at its cap of slots, and each may have a slot that is not reserved.
  if (!state_.running.empty()) return true;
  if (state_.waiting_count == 0) return false;
  // With every slot free only blocks can keep anybody back: those that others hold, or the cap of a class.
  ViewWaiting(state_.options.max_running);
  return !Decide({{}, waiting_}, MakeBudget()).shares.empty();
}

Generation* Scheduler::LeastUrgentWaitingHolder() const {
  const Generation* head = nullptr;
  for (const ClassState& one : state_.classes) {
    for (const GenerationQueue* queue : {&one.lacking, &one.parked}) {
      if (queue->empty()) continue;
      const Generation* first = queue->begin()->generation;
      if (head == nullptr || first->order < head->order) head = first;
    }
  }
  for (auto it = state_.waiting_holders.end(); it != state_.waiting_holders.begin();) {
    Generation* generation = (--it)->generation;
    if (generation != head && state_.MissingBlockCount(*generation) > 0) return generation;
  }
  return nullptr;
}

absl::Span<Generation* const> Scheduler::WantBlocks() {
  want_blocks_.clear();
  bool lacking = false;
  for (const ClassState& one : state_.classes) lacking |= !one.lacking.empty() || !one.parked.empty();
  if (!lacking) return want_blocks_;
  ViewRunning();
  if (!state_.returning.empty()) {
    for (const GenerationQueue::Entry& entry : state_.returning) running_.push_back(MakeCandidate(*entry.generation));
    std::sort(running_.begin(), running_.end(),
              [](const Candidate& a, const Candidate& b) { return a.order < b.order; });
  }
  Budget budget = MakeBudget();
  budget.slot_count = std::max(budget.slot_count, static_cast<int64_t>(running_.size()));
  budget.free_block_count = state_.pool.block_count();
  const int64_t limit = WaitingLimit(running_, budget, MostUrgentWaiting());
  if (limit == 0) return want_blocks_;
  ViewWaiting(limit);
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

Budget Scheduler::MakeBudget() const {
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
  ViewWaiting(WaitingLimit(running_, budget, MostUrgentWaiting()));
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
    running_.push_back(MakeCandidate(*entry.generation));
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

void Scheduler::ViewWaiting(int64_t limit) const {
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
    waiting_.push_back(MakeCandidate(generation));
    waiting_generations_.push_back(&generation);
  }
}

Candidate Scheduler::MakeCandidate(const Generation& generation) const {
  return {
      .order = generation.order,
      .decoding = generation.decoding(),
      .pending_token_count = generation.pending_token_count(),
      .missing_block_count = state_.MissingBlockCount(generation),
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
