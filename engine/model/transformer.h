// The forward pass of the llama family, written once over kernels::Backend.

#ifndef FERMATA_ENGINE_MODEL_TRANSFORMER_H_
#define FERMATA_ENGINE_MODEL_TRANSFORMER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/model/llama_config.h"
#include "engine/model/llama_weights.h"
#include "kernels/backend.h"

namespace fermata {

// Owns the buffers of a step, all allocated at once. One thread at a time.
class Transformer {
 public:
  // Borrows all but what it allocates; they must outlive it. `max_rows` bounds the rows of one Forward(), `max_outputs`
  // those whose logits are asked for. RESOURCE_EXHAUSTED if there is no memory.
  static absl::StatusOr<std::unique_ptr<Transformer>> Create(const LlamaConfig& config, const LlamaWeights& weights,
                                                             kernels::Backend& backend, int32_t max_rows,
                                                             int32_t max_outputs);

  kernels::Backend& backend() { return backend_; }

  // Has the back end choose how the products are computed, by measuring, and keep steps of decode, if it does: before
  // the first step, after AllocateKv().
  absl::Status Tune();

  // What a step gives of its rows that are sampled, in the order of `output_rows`, in memory of the host: valid until
  // the next call.
  struct Outputs {
    absl::Span<const float> logits;                              // [rows][vocabulary] of the first ones
    absl::Span<const kernels::Backend::SelectedToken> selected;  // from those after them
    absl::Span<const int32_t> tokens;                            // drawn from the last; -1: its logits are no numbers
  };

  // Computes one token for each row, and writes its keys and values into the cache. `segments` cover `tokens` in order.
  // The last draws.size() of `output_rows` are drawn from by the back end, REQUIRES: it DrawsTokens(). From as many as
  // there are `selections` before these it selects, with their `changes`; logits are copied of those before. Calls
  // `launched`, unless null, when the back end has its work, or before, where it takes long to ask for it.
  absl::StatusOr<Outputs> Forward(absl::Span<const int32_t> tokens, absl::Span<const kernels::Segment> segments,
                                  absl::Span<const int32_t> output_rows, absl::Span<const kernels::Backend::Draw> draws,
                                  absl::Span<const kernels::Backend::Selection> selections = {},
                                  absl::Span<const kernels::Backend::LogitChange> changes = {},
                                  const std::function<void()>& launched = nullptr);

  // The logits of all rows listed.
  absl::StatusOr<absl::Span<const float>> Forward(absl::Span<const int32_t> tokens,
                                                  absl::Span<const kernels::Segment> segments,
                                                  absl::Span<const int32_t> output_rows);

 private:
  Transformer(const LlamaConfig& config, const LlamaWeights& weights, kernels::Backend& backend, int32_t max_rows,
              int32_t max_outputs)
      : config_(config), weights_(weights), backend_(backend), max_rows_(max_rows), max_outputs_(max_outputs) {}

  absl::Status AllocateBuffers();

  // The products of a layer, all that read the same rows together.
  std::vector<kernels::Backend::Product> AttentionInputs(const LlamaLayer& layer) const;
  std::vector<kernels::Backend::Product> AttentionOutput(const LlamaLayer& layer) const;
  std::vector<kernels::Backend::Product> FeedForwardInputs(const LlamaLayer& layer) const;
  std::vector<kernels::Backend::Product> FeedForwardOutput(const LlamaLayer& layer) const;

  // Asks for all of a step, from tokens to logits; no logits if there are no `output_rows`.
  void Ask(absl::Span<const int32_t> tokens, absl::Span<const int32_t> output_rows);

  // Has the back end keep steps of decode of a few counts of rows.
  absl::Status Record();

  // All between a layer's attention and that of the next one (null: there is none), for the back end to do at once.
  kernels::Backend::LayerPassage Passage(const LlamaLayer& layer, const LlamaLayer* next) const;

  // From a layer's inputs, the products of its rows, to attention_.
  void Attend(const LlamaLayer& layer, int32_t index, int32_t rows);

  // From attention_ to the inputs of the next layer, step by step.
  void PassLayer(const LlamaLayer& layer, const LlamaLayer* next, int32_t rows);

  const LlamaConfig& config_;
  const LlamaWeights& weights_;
  kernels::Backend& backend_;
  const int32_t max_rows_;
  const int32_t max_outputs_;

  std::unique_ptr<kernels::Buffer> hidden_;     // [rows][embedding]: what flows from layer to layer
  std::unique_ptr<kernels::Buffer> normed_;     // [rows][embedding]
  std::unique_ptr<kernels::Buffer> delta_;      // [rows][embedding]: what a block adds
  std::unique_ptr<kernels::Buffer> query_;      // [rows][heads][head size]
  std::unique_ptr<kernels::Buffer> key_;        // [rows][kv heads][head size]
  std::unique_ptr<kernels::Buffer> value_;      // [rows][kv heads][head size]
  std::unique_ptr<kernels::Buffer> attention_;  // [rows][heads][head size]
  std::unique_ptr<kernels::Buffer> gate_;       // [rows][feed forward]
  std::unique_ptr<kernels::Buffer> up_;         // [rows][feed forward]
  std::unique_ptr<kernels::Buffer> logits_;     // [outputs][vocabulary]
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_TRANSFORMER_H_
