#include "engine/core/scheduler.h"

namespace fermata {

bool Scheduler::HasWork() const {
  // What runs always gets a token, and so does the first that has its blocks once a slot is free.
  if (!state_.running.empty() || !state_.ready.empty()) return true;
  if (state_.lacking.empty()) return false;
  // With every slot free only the blocks that others hold can keep the head back, and nobody overtakes it.
  return state_.MissingBlockCount(*state_.lacking.begin()->generation) <= state_.pool.free_count();
}

Generation* Scheduler::LeastUrgentWaitingHolder() const {
  if (state_.lacking.empty()) return nullptr;
  const Generation* head = state_.lacking.begin()->generation;
  if (state_.counters.block_preempted_count == static_cast<int64_t>(head->blocks.size())) return nullptr;
  for (auto it = state_.lacking.end(); it != state_.lacking.begin();) {
    --it;
    if (it->generation != head && !it->generation->blocks.empty()) return it->generation;
  }
  return nullptr;
}

const Batch& Scheduler::PrepareStep() {
  const Budget budget = {
      .slot_count = state_.options.max_running,
      .token_count = state_.options.step_tokens,
      .free_block_count = state_.pool.free_count(),
      .displacement = state_.options.displacement,
  };
  ViewRunning();
  ViewWaiting(budget);
  const Plan plan = Decide({running_, waiting_}, budget);

  slices_.clear();
  batch_generations_.clear();
  state_.journal.Reserve(plan.shares.size());
  // Victims first: at no time do more run than there are slots.
  for (const int32_t index : plan.displaced) life_cycle_.Displace(*running_generations_[index]);
  for (const Share& share : plan.shares) {
    Generation& generation = *(share.waiting ? waiting_generations_ : running_generations_)[share.index];
    if (share.waiting) life_cycle_.Admit(generation);
    AddSlice(generation, share.token_count);
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

void Scheduler::ViewWaiting(const Budget& budget) {
  waiting_.clear();
  waiting_generations_.clear();
  auto lacking = state_.lacking.begin();
  auto ready = state_.ready.begin();
  const auto lacking_end = state_.lacking.end();
  const auto ready_end = state_.ready.end();
  const auto ready_is_next = [&] { return lacking == lacking_end || (ready != ready_end && *ready < *lacking); };
  if (lacking == lacking_end && ready == ready_end) return;
  const OrderKey head = ready_is_next() ? ready->order : lacking->order;
  const int64_t limit = WaitingLimit(running_, budget, head);
  int64_t lacking_left = limit;
  int64_t ready_left = limit;
  // Each queue has a limit of its own: if the first that lacks blocks does not get them, those who can start are in the
  // other. So: a merge, up to the limit of each.
  while ((lacking != lacking_end && lacking_left > 0) || (ready != ready_end && ready_left > 0)) {
    const bool take_ready = ready_left > 0 && ready != ready_end && (lacking_left == 0 || ready_is_next());
    Generation& generation = *(take_ready ? ready++ : lacking++)->generation;
    --(take_ready ? ready_left : lacking_left);
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
      .blocks = generation.blocks,
      .sample = token_count == generation.pending_token_count(),
      .sampling = &generation.spec.sampling,
  });
  batch_generations_.push_back(&generation);
}

}  // namespace fermata
