#include "engine/core/scheduler.h"

namespace fermata {

bool Scheduler::HasWork() const {
  // What runs always gets a token, and so does the first that is preempted once a slot is free: it has its blocks.
  if (!state_.running.empty() || !state_.preempted.empty()) return true;
  if (state_.queued.empty()) return false;
  // With every slot free only the blocks that paused ones hold can keep the head back, and nobody overtakes it.
  return state_.MissingBlockCount(*state_.queued.begin()->generation) <= state_.pool.free_count();
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
  auto queued = state_.queued.begin();
  auto preempted = state_.preempted.begin();
  const auto queued_end = state_.queued.end();
  const auto preempted_end = state_.preempted.end();
  const auto preempted_is_next = [&] {
    return queued == queued_end || (preempted != preempted_end && *preempted < *queued);
  };
  if (queued == queued_end && preempted == preempted_end) return;
  const OrderKey head = preempted_is_next() ? preempted->order : queued->order;
  const int64_t limit = WaitingLimit(running_, budget, head);
  int64_t queued_left = limit;
  int64_t preempted_left = limit;
  // Each queue has a limit of its own: if the first that is queued lacks blocks, those who can start are in the other.
  // So: a merge, up to the limit of each.
  while ((queued != queued_end && queued_left > 0) || (preempted != preempted_end && preempted_left > 0)) {
    const bool take_preempted =
        preempted_left > 0 && preempted != preempted_end && (queued_left == 0 || preempted_is_next());
    Generation& generation = *(take_preempted ? preempted++ : queued++)->generation;
    --(take_preempted ? preempted_left : queued_left);
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
      .first_position = generation.computed_token_count,
      .token_count = token_count,
      .blocks = generation.blocks,
      .sample = token_count == generation.pending_token_count(),
      .sampling = &generation.spec.sampling,
  });
  batch_generations_.push_back(&generation);
}

}  // namespace fermata
