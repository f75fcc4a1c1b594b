#include "engine/model/transformer_runner.h"

#include <algorithm>

#include "absl/status/statusor.h"
#include "engine/model/random_stream.h"
#include "engine/model/token_selection.h"
#include "glog/logging.h"

namespace fermata {
namespace {

std::vector<kernels::Backend::KvBlockCopy> ToBlockCopies(absl::Span<const KvCopy> copies) {
  std::vector<kernels::Backend::KvBlockCopy> result;
  result.reserve(copies.size());
  for (const KvCopy& copy : copies) result.push_back({Value(copy.block), copy.host});
  return result;
}

// Whether nothing but the temperature is asked for: then the choice needs no more than the row of logits.
bool IsPlain(const SamplingParams& params) {
  const bool greedy = params.temperature == 0.0f || params.top_k == 1;
  const bool truncated = params.top_k > 0 || params.top_p < 1.0f || params.min_p > 0.0f;
  return (greedy || !truncated) && params.logprobs < 0 && params.logit_bias.empty() &&
         params.repetition_penalty == 1.0f && params.frequency_penalty == 0.0f && params.presence_penalty == 0.0f;
}

kernels::Backend::Draw DrawOf(const SamplingParams& params, uint64_t position) {
  if (params.temperature == 0.0f || params.top_k == 1) return {};
  return {UniformAt(params.seed, position), params.temperature};
}

SamplingContext ContextOf(const BatchSlice& slice) { return {slice.context, slice.prompt_token_count, slice.appended}; }

void SetToken(int32_t token, SampledToken* sampled) {
  sampled->token = TokenId{token};
  if (token < 0) sampled->status = absl::InternalError("the model's logits are not numbers");
}

void SetSelected(const kernels::Backend::SelectedToken& selected, int32_t logprobs, int32_t vocabulary_size,
                 SampledToken* sampled) {
  SetToken(selected.token, sampled);
  if (selected.token < 0 || logprobs < 0) return;
  sampled->logprobs.logprob = selected.logprob;
  for (int32_t i = 0; i < std::min(logprobs, vocabulary_size); ++i) {
    sampled->logprobs.top.emplace_back(TokenId{selected.most_likely[i]}, selected.most_likely_logprobs[i]);
  }
}

}  // namespace

absl::Status TransformerRunner::Run(const Batch& batch, StepOutput* output) {
  output->sampled.clear();
  LayOut(batch);
  CHECK_LE(static_cast<int32_t>(tokens_.size()), max_rows_);
  CHECK_LE(static_cast<int32_t>(output_rows_.size()), max_outputs_);
  const absl::StatusOr<Transformer::Outputs> outputs =
      transformer_->Forward(tokens_, segments_, output_rows_, draws_, selections_, changes_, batch.launched);
  if (!outputs.ok()) return outputs.status();
  size_t copied = 0;
  size_t selected = 0;
  size_t drawn = 0;
  for (size_t i = 0; i < batch.slices.size(); ++i) {
    const BatchSlice& slice = batch.slices[i];
    if (!slice.sample) continue;
    SampledToken& sampled = output->sampled.emplace_back();
    sampled.slice = static_cast<int32_t>(i);
    switch (choosers_[output->sampled.size() - 1]) {
      case Chooser::kDraw:
        SetToken(outputs->tokens[drawn++], &sampled);
        break;
      case Chooser::kSelect:
        SetSelected(outputs->selected[selected++], slice.sampling->logprobs, vocabulary_size_, &sampled);
        break;
      case Chooser::kSampler:
        sampler_.Sample(outputs->logits.subspan(copied++ * vocabulary_size_, vocabulary_size_), *slice.sampling,
                        ContextOf(slice), &sampled);
        break;
    }
  }
  return absl::OkStatus();
}

TransformerRunner::Chooser TransformerRunner::Choose(const BatchSlice& slice) {
  const kernels::Backend& backend = transformer_->backend();
  if (backend.DrawsTokens() && IsPlain(*slice.sampling)) {
    draws_.push_back(DrawOf(*slice.sampling, slice.context.size()));
    return Chooser::kDraw;
  }
  const int32_t max_changes = backend.max_logit_changes();
  const bool selects =
      max_changes >= 0 && AppendSelection(*slice.sampling, ContextOf(slice), max_changes, &selections_, &changes_);
  return selects ? Chooser::kSelect : Chooser::kSampler;
}

absl::StatusOr<std::shared_ptr<std::byte>> TransformerRunner::AllocateHostKv(int64_t bytes) {
  absl::StatusOr<std::shared_ptr<std::byte>> memory = transformer_->backend().AllocateHost(bytes);
  if (!memory.ok() || *memory != nullptr) return memory;
  return ModelRunner::AllocateHostKv(bytes);
}

absl::Status TransformerRunner::CopyKvToHost(absl::Span<const KvCopy> copies) {
  return transformer_->backend().CopyKvToHost(ToBlockCopies(copies));
}

absl::Status TransformerRunner::CopyKvFromHost(absl::Span<const KvCopy> copies) {
  return transformer_->backend().CopyKvFromHost(ToBlockCopies(copies));
}

void TransformerRunner::LayOut(const Batch& batch) {
  tokens_.clear();
  segments_.clear();
  blocks_.clear();
  output_rows_.clear();
  selected_rows_.clear();
  drawn_rows_.clear();
  choosers_.clear();
  draws_.clear();
  selections_.clear();
  changes_.clear();
  size_t block_count = 0;
  for (const BatchSlice& slice : batch.slices) block_count += slice.blocks.size();
  blocks_.reserve(block_count);  // segments point into it: it must not move
  for (const BatchSlice& slice : batch.slices) {
    segments_.push_back({.first_row = static_cast<int32_t>(tokens_.size()),
                         .row_count = slice.token_count,
                         .first_position = slice.first_position,
                         .blocks = blocks_.data() + blocks_.size()});
    for (const BlockId block : slice.blocks) blocks_.push_back(Value(block));
    for (const TokenId token : slice.context.subspan(slice.first_position, slice.token_count)) {
      tokens_.push_back(Value(token));
    }
    if (!slice.sample) continue;
    const int32_t row = static_cast<int32_t>(tokens_.size()) - 1;
    choosers_.push_back(Choose(slice));
    const Chooser chooser = choosers_.back();
    auto& rows = chooser == Chooser::kDraw ? drawn_rows_ : chooser == Chooser::kSelect ? selected_rows_ : output_rows_;
    rows.push_back(row);
  }
  output_rows_.insert(output_rows_.end(), selected_rows_.begin(), selected_rows_.end());
  output_rows_.insert(output_rows_.end(), drawn_rows_.begin(), drawn_rows_.end());
}

}  // namespace fermata
