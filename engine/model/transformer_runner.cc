#include "engine/model/transformer_runner.h"

#include "absl/status/statusor.h"
#include "glog/logging.h"

namespace fermata {
namespace {

std::vector<kernels::Backend::KvBlockCopy> ToBlockCopies(absl::Span<const KvCopy> copies) {
  std::vector<kernels::Backend::KvBlockCopy> result;
  result.reserve(copies.size());
  for (const KvCopy& copy : copies) result.push_back({Value(copy.block), copy.host});
  return result;
}

}  // namespace

absl::Status TransformerRunner::Run(const Batch& batch, StepOutput* output) {
  output->sampled.clear();
  LayOut(batch);
  CHECK_LE(static_cast<int32_t>(tokens_.size()), max_rows_);
  CHECK_LE(static_cast<int32_t>(output_rows_.size()), max_outputs_);
  const absl::StatusOr<absl::Span<const float>> logits = transformer_->Forward(tokens_, segments_, output_rows_);
  if (!logits.ok()) return logits.status();
  size_t n = 0;
  for (size_t i = 0; i < batch.slices.size(); ++i) {
    const BatchSlice& slice = batch.slices[i];
    if (!slice.sample) continue;
    SampledToken& sampled = output->sampled.emplace_back();
    sampled.slice = static_cast<int32_t>(i);
    sampler_.Sample(logits->subspan(n++ * vocabulary_size_, vocabulary_size_), *slice.sampling,
                    {slice.context, slice.prompt_token_count, slice.appended}, &sampled);
  }
  return absl::OkStatus();
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
    if (slice.sample) output_rows_.push_back(static_cast<int32_t>(tokens_.size()) - 1);
  }
}

}  // namespace fermata
