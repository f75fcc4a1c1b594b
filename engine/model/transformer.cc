#include "engine/model/transformer.h"

#include <utility>

#include "glog/logging.h"

namespace fermata {

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Create(const LlamaConfig& config, const LlamaWeights& weights,
                                                                 kernels::Backend& backend, int32_t max_rows,
                                                                 int32_t max_outputs) {
  std::unique_ptr<Transformer> transformer(new Transformer(config, weights, backend));
  absl::Status status = backend.SetRope(config.rope_frequencies);
  if (status.ok()) status = transformer->AllocateBuffers(max_rows, max_outputs);
  if (!status.ok()) return status;
  return transformer;
}

absl::Status Transformer::AllocateBuffers(int32_t max_rows, int32_t max_outputs) {
  const int64_t query_size = int64_t{config_.head_count} * config_.head_size;
  const int64_t kv_size = int64_t{config_.kv_head_count} * config_.head_size;
  const std::pair<std::unique_ptr<kernels::Buffer>*, int64_t> buffers[] = {
      {&hidden_, max_rows * int64_t{config_.embedding_size}},
      {&normed_, max_rows * int64_t{config_.embedding_size}},
      {&delta_, max_rows * int64_t{config_.embedding_size}},
      {&query_, max_rows * query_size},
      {&key_, max_rows * kv_size},
      {&value_, max_rows * kv_size},
      {&attention_, max_rows * query_size},
      {&gate_, max_rows * int64_t{config_.feed_forward_size}},
      {&up_, max_rows * int64_t{config_.feed_forward_size}},
  };
  for (const auto& [buffer, size] : buffers) {
    absl::StatusOr<std::unique_ptr<kernels::Buffer>> allocated = backend_.Allocate(size);
    if (!allocated.ok()) return allocated.status();
    *buffer = *std::move(allocated);
  }
  absl::StatusOr<std::unique_ptr<kernels::Buffer>> logits =
      backend_.AllocateFloats(max_outputs * int64_t{config_.vocabulary_size});
  if (!logits.ok()) return logits.status();
  logits_ = *std::move(logits);
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<const float>> Transformer::Forward(absl::Span<const int32_t> tokens,
                                                             absl::Span<const kernels::Segment> segments,
                                                             absl::Span<const int32_t> output_rows) {
  CHECK(!tokens.empty());
  const int32_t rows = static_cast<int32_t>(tokens.size());
  backend_.BeginStep(segments);
  backend_.Embed(*weights_.token_embedding, tokens, *hidden_);
  backend_.RmsNorm(*weights_.layers[0].attention_norm, config_.norm_epsilon, *hidden_, rows, *normed_);
  for (int32_t i = 0; i < config_.layer_count; ++i) {
    const LlamaLayer& layer = weights_.layers[i];
    AttentionBlock(layer, i, rows);
    backend_.AddRmsNorm(*layer.feed_forward_norm, config_.norm_epsilon, *delta_, rows, *hidden_, *normed_);
    FeedForwardBlock(layer, rows);
    if (i + 1 == config_.layer_count) break;
    backend_.AddRmsNorm(*weights_.layers[i + 1].attention_norm, config_.norm_epsilon, *delta_, rows, *hidden_,
                        *normed_);
  }
  backend_.Add(*delta_, int64_t{rows} * config_.embedding_size, *hidden_);
  if (output_rows.empty()) {
    const absl::Status status = backend_.Synchronize();
    if (!status.ok()) return status;
    return absl::Span<const float>();
  }
  // Only the rows that are sampled go through the output matrix, the largest of all.
  const int32_t outputs = static_cast<int32_t>(output_rows.size());
  backend_.GatherRows(*hidden_, output_rows, config_.embedding_size, *delta_);
  backend_.RmsNorm(*weights_.output_norm, config_.norm_epsilon, *delta_, outputs, *normed_);
  backend_.MatMul({{&weights_.output(), logits_.get()}}, *normed_, outputs);
  return backend_.ToHost(*logits_, int64_t{outputs} * config_.vocabulary_size);
}

void Transformer::AttentionBlock(const LlamaLayer& layer, int32_t index, int32_t rows) {
  backend_.MatMul({{layer.query.get(), query_.get()}, {layer.key.get(), key_.get()}, {layer.value.get(), value_.get()}},
                  *normed_, rows);
  if (layer.query_bias != nullptr) {
    backend_.AddBias(*layer.query_bias, rows, *query_);
    backend_.AddBias(*layer.key_bias, rows, *key_);
    backend_.AddBias(*layer.value_bias, rows, *value_);
  }
  if (layer.query_norm != nullptr) {
    // Each head is a row of its own.
    backend_.RmsNorm(*layer.query_norm, config_.norm_epsilon, *query_, rows * config_.head_count, *query_);
    backend_.RmsNorm(*layer.key_norm, config_.norm_epsilon, *key_, rows * config_.kv_head_count, *key_);
  }
  backend_.RopeAndStore(index, config_.head_count, *query_, *key_, *value_);
  backend_.Attention(index, config_.head_count, *query_, *attention_);
  backend_.MatMul({{layer.attention_output.get(), delta_.get()}}, *attention_, rows);
}

void Transformer::FeedForwardBlock(const LlamaLayer& layer, int32_t rows) {
  backend_.MatMul({{layer.gate.get(), gate_.get()}, {layer.up.get(), up_.get()}}, *normed_, rows);
  backend_.SwiGlu(*up_, rows, config_.feed_forward_size, *gate_);
  backend_.MatMul({{layer.down.get(), delta_.get()}}, *gate_, rows);
}

}  // namespace fermata
