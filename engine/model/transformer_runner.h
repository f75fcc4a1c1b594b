// The engine's ModelRunner over a transformer: lays out rows, runs the forward pass, samples.

#ifndef FERMATA_ENGINE_MODEL_TRANSFORMER_RUNNER_H_
#define FERMATA_ENGINE_MODEL_TRANSFORMER_RUNNER_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "engine/core/model_runner.h"
#include "engine/model/sampler.h"
#include "engine/model/transformer.h"
#include "kernels/backend.h"

namespace fermata {

class TransformerRunner : public ModelRunner {
 public:
  // `keep_alive` holds whatever the transformer borrows. `vocabulary_size` is that of its logits; `max_rows` and
  // `max_outputs` those of its creation.
  TransformerRunner(std::shared_ptr<const void> keep_alive, std::unique_ptr<Transformer> transformer,
                    int32_t vocabulary_size, int32_t max_rows, int32_t max_outputs)
      : keep_alive_(std::move(keep_alive)),
        transformer_(std::move(transformer)),
        vocabulary_size_(vocabulary_size),
        max_rows_(max_rows),
        max_outputs_(max_outputs) {}

  absl::Status Run(const Batch& batch, StepOutput* output) override;
  bool CallsLaunched() const override { return transformer_->backend().asynchronous(); }
  int64_t kv_block_bytes() const override { return transformer_->backend().kv_block_bytes(); }
  absl::StatusOr<std::shared_ptr<std::byte>> AllocateHostKv(int64_t bytes) override;
  absl::Status CopyKvToHost(absl::Span<const KvCopy> copies) override;
  absl::Status CopyKvFromHost(absl::Span<const KvCopy> copies) override;

 private:
  // Who chooses a slice's token: the back end, if nothing but a temperature is asked for; the back end with more to
  // look at; or the sampler, from a copy of the logits.
  enum class Chooser { kDraw, kSelect, kSampler };

  // Appends what the back end is to be told, if it is the one.
  Chooser Choose(const BatchSlice& slice);

  // Fills the vectors below from `batch`.
  void LayOut(const Batch& batch);

  std::shared_ptr<const void> keep_alive_;
  std::unique_ptr<Transformer> transformer_;
  const int32_t vocabulary_size_;
  const int32_t max_rows_;
  const int32_t max_outputs_;
  Sampler sampler_;

  // Of one step; kept for their memory.
  std::vector<int32_t> tokens_;
  std::vector<kernels::Segment> segments_;
  std::vector<int32_t> blocks_;       // of all segments, one after the other
  std::vector<int32_t> output_rows_;  // of slices whose logits are copied, are selected from, and are drawn from
  std::vector<int32_t> selected_rows_;
  std::vector<int32_t> drawn_rows_;
  std::vector<Chooser> choosers_;  // of each slice that is sampled
  std::vector<kernels::Backend::Draw> draws_;
  std::vector<kernels::Backend::Selection> selections_;
  std::vector<kernels::Backend::LogitChange> changes_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_TRANSFORMER_RUNNER_H_
