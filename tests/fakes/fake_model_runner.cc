#include "tests/fakes/fake_model_runner.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/fakes/fake_model.h"

namespace fermata {

FakeModelRunner::FakeModelRunner(FakeModelRunnerOptions options)
    : options_(std::move(options)),
      slots_(static_cast<size_t>(options_.block_count) * options_.block_tokens),
      host_slots_(static_cast<size_t>(options_.host_block_count) * options_.block_tokens) {}

void FakeModelRunner::Violation(const BatchSlice& slice, const std::string& what) {
  violations_.push_back(absl::StrCat("generation ", Value(slice.key), ": ", what));
}

absl::Status FakeModelRunner::Run(const Batch& batch, StepOutput* output) {
  output->sampled.clear();
  if (options_.before_run) {
    const absl::Status status = options_.before_run(batch);
    if (!status.ok()) return status;
  }
  CheckBatch(batch);
  // What follows relies on it.
  if (!violations_.empty()) return absl::InternalError(violations_.front());
  for (const BatchSlice& slice : batch.slices) Write(slice, batch.step);
  for (size_t i = 0; i < batch.slices.size(); ++i) {
    const BatchSlice& slice = batch.slices[i];
    // Attention reads all that comes before, whether a token is sampled or not.
    const TokenId next = ReadBack(slice);
    if (!slice.sample) continue;
    SampledToken& sampled = output->sampled.emplace_back();
    sampled.slice = static_cast<int32_t>(i);
    sampled.token = next;
    if (slice.sampling->logprobs >= 0) {
      sampled.logprobs.logprob = -0.5f;
      for (int32_t n = 0; n < slice.sampling->logprobs; ++n) {
        sampled.logprobs.top.emplace_back(TokenId{n}, -0.5f - static_cast<float>(n));
      }
    }
    if (options_.before_sample) sampled.status = options_.before_sample(slice);
  }
  return violations_.empty() ? absl::OkStatus() : absl::InternalError(violations_.front());
}

void FakeModelRunner::CheckBatch(const Batch& batch) {
  int64_t tokens = 0;
  std::set<GenerationKey> keys;
  for (const BatchSlice& slice : batch.slices) {
    tokens += slice.token_count;
    if (slice.token_count < 1) Violation(slice, "a slice of no tokens");
    if (!keys.insert(slice.key).second) Violation(slice, "twice in one batch");
    const int64_t end = int64_t{slice.first_position} + slice.token_count;
    if (end > static_cast<int64_t>(slice.context.size())) Violation(slice, "computes beyond its context");
    if (slice.sample != (end == static_cast<int64_t>(slice.context.size())))
      Violation(slice, "samples at a wrong place");
  }
  if (batch.slices.empty()) violations_.push_back("an empty batch");
  if (tokens > options_.max_step_tokens) violations_.push_back(absl::StrCat("a step of ", tokens, " tokens"));
  if (static_cast<int64_t>(batch.slices.size()) > options_.max_rows) {
    violations_.push_back(absl::StrCat("a step of ", batch.slices.size(), " generations"));
  }
}

FakeModelRunner::Slot* FakeModelRunner::SlotAt(const BatchSlice& slice, int64_t position) {
  const size_t logical = static_cast<size_t>(position / options_.block_tokens);
  if (logical >= slice.blocks.size()) {
    Violation(slice, absl::StrCat("has no block for position ", position));
    return nullptr;
  }
  const int32_t block = Value(slice.blocks[logical]);
  if (block < 0 || block >= options_.block_count) {
    Violation(slice, absl::StrCat("block ", block, " is not of the pool"));
    return nullptr;
  }
  return &slots_[static_cast<size_t>(block) * options_.block_tokens + position % options_.block_tokens];
}

absl::Status FakeModelRunner::CopyKvToHost(absl::Span<const KvCopy> copies) {
  for (const KvCopy& copy : copies) {
    std::memcpy(copy.host, &slots_[static_cast<size_t>(Value(copy.block)) * options_.block_tokens], kv_block_bytes());
  }
  return absl::OkStatus();
}

absl::Status FakeModelRunner::CopyKvFromHost(absl::Span<const KvCopy> copies) {
  for (const KvCopy& copy : copies) {
    Slot* const slots = &slots_[static_cast<size_t>(Value(copy.block)) * options_.block_tokens];
    std::memcpy(static_cast<void*>(slots), copy.host, kv_block_bytes());
    // Steps are counted anew in another process.
    for (int32_t i = 0; i < options_.block_tokens; ++i) slots[i].step = 0;
  }
  return absl::OkStatus();
}

void FakeModelRunner::Copy(const KvMove& move) {
  const size_t count = static_cast<size_t>(move.block_count);
  const size_t block_tokens = options_.block_tokens;
  std::vector<Slot> moved;
  if (move.from == KvTier::kDisk) {
    const std::vector<Slot>& file = files_[move.generation_id];
    if (file.size() < (move.first_block + count) * block_tokens) {
      violations_.push_back(absl::StrCat("the file of ", move.generation_id.value(), " is too short"));
      return;
    }
    const auto begin = file.begin() + move.first_block * block_tokens;
    moved.assign(begin, begin + count * block_tokens);
  } else if (move.from != KvTier::kNone) {
    const auto read = [&](const std::vector<Slot>& from, const std::vector<BlockId>& blocks) {
      for (const BlockId block : blocks) {
        const auto begin = from.begin() + Value(block) * block_tokens;
        moved.insert(moved.end(), begin, begin + block_tokens);
      }
    };
    read(slots_, move.device_source);
    read(move.from == KvTier::kDevice ? slots_ : host_slots_, move.source);
  }
  if (moved.size() != count * block_tokens) {
    violations_.push_back(absl::StrCat("a move of ", count, " blocks with others"));
    return;
  }
  if (move.to == KvTier::kDisk) {
    files_[move.generation_id] = std::move(moved);
    return;
  }
  std::vector<Slot>& to = move.to == KvTier::kDevice ? slots_ : host_slots_;
  if (move.target.size() != count) violations_.push_back("a move to another number of blocks");
  for (size_t i = 0; i < move.target.size() && i < count; ++i) {
    std::copy_n(moved.begin() + i * block_tokens, block_tokens, to.begin() + Value(move.target[i]) * block_tokens);
  }
}

void FakeModelRunner::Write(const BatchSlice& slice, int64_t step) {
  for (int32_t i = 0; i < slice.token_count; ++i) {
    const int64_t position = int64_t{slice.first_position} + i;
    Slot* slot = SlotAt(slice, position);
    if (slot == nullptr) continue;
    if (slot->step == step)
      Violation(slice, absl::StrCat("position ", position, ": its slot was written in this step"));
    *slot = {slice.context[position], position, step};
  }
}

TokenId FakeModelRunner::ReadBack(const BatchSlice& slice) {
  FakeContextHash hash;
  const int64_t end = int64_t{slice.first_position} + slice.token_count;
  for (int64_t position = 0; position < end; ++position) {
    const Slot* slot = SlotAt(slice, position);
    if (slot == nullptr) continue;
    if (slot->position != position || slot->token != slice.context[position]) {
      Violation(slice, absl::StrCat("position ", position, " was not found where it was written"));
    }
    hash.Add(slot->token, slot->position);
  }
  return hash.Next(slice.sampling->seed, options_.vocabulary_size);
}

}  // namespace fermata
