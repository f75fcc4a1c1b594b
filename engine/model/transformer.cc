#include "engine/model/transformer.h"

#include <utility>

#include "glog/logging.h"

namespace fermata {

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Create(const LlamaConfig& config, const LlamaWeights& weights,
                                                                 kernels::Backend& backend, int32_t max_rows,
                                                                 int32_t max_outputs) {
  std::unique_ptr<Transformer> transformer(new Transformer(config, weights, backend));
  const absl::Status status = transformer->AllocateBuffers(max_rows, max_outputs);
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
      {&logits_, max_outputs * int64_t{config_.vocabulary_size}},
  };
  for (const auto& [buffer, size] : buffers) {
    absl::StatusOr<std::unique_ptr<kernels::Buffer>> allocated = backend_.Allocate(size);
    if (!allocated.ok()) return allocated.status();
    *buffer = *std::move(allocated);
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<const float>> Transformer::Forward(absl::Span<const int32_t> tokens,
                                                             absl::Span<const kernels::Segment> segments,
                                                             absl::Span<const int32_t> output_rows) {
  CHECK(!tokens.empty());
  const int32_t rows = static_cast<int32_t>(tokens.size());
  backend_.Embed(*weights_.token_embedding, tokens, hidden_->data());
  for (int32_t i = 0; i < config_.layer_count; ++i) {
    AttentionBlock(weights_.layers[i], i, segments, rows);
    FeedForwardBlock(weights_.layers[i], rows);
  }
  if (output_rows.empty()) {
    const absl::Status status = backend_.Synchronize();
    if (!status.ok()) return status;
    return absl::Span<const float>();
  }
  // Only the rows that are sampled go through the output matrix, the largest of all.
  const int32_t outputs = static_cast<int32_t>(output_rows.size());
  backend_.GatherRows(hidden_->data(), output_rows, config_.embedding_size, delta_->data());
  backend_.RmsNorm(*weights_.output_norm, config_.norm_epsilon, delta_->data(), outputs, normed_->data());
  backend_.MatMul({{&weights_.output(), logits_->data()}}, normed_->data(), outputs);
  return backend_.ToHost(logits_->data(), int64_t{outputs} * config_.vocabulary_size);
}

void Transformer::AttentionBlock(const LlamaLayer& layer, int32_t index, absl::Span<const kernels::Segment> segments,
                                 int32_t rows) {
  backend_.RmsNorm(*layer.attention_norm, config_.norm_epsilon, hidden_->data(), rows, normed_->data());
  backend_.MatMul(
      {{layer.query.get(), query_->data()}, {layer.key.get(), key_->data()}, {layer.value.get(), value_->data()}},
      normed_->data(), rows);
  if (layer.query_bias != nullptr) {
    backend_.AddBias(*layer.query_bias, rows, query_->data());
    backend_.AddBias(*layer.key_bias, rows, key_->data());
    backend_.AddBias(*layer.value_bias, rows, value_->data());
  }
  if (layer.query_norm != nullptr) {
    // Each head is a row of its own.
    backend_.RmsNorm(*layer.query_norm, config_.norm_epsilon, query_->data(), rows * config_.head_count,
                     query_->data());
    backend_.RmsNorm(*layer.key_norm, config_.norm_epsilon, key_->data(), rows * config_.kv_head_count, key_->data());
  }
  backend_.RopeAndStore(segments, index, config_.head_count, config_.rope_frequencies.data(), query_->data(),
                        key_->data(), value_->data());
  backend_.Attention(segments, index, config_.head_count, query_->data(), attention_->data());
  backend_.MatMul({{layer.attention_output.get(), delta_->data()}}, attention_->data(), rows);
  backend_.Add(delta_->data(), int64_t{rows} * config_.embedding_size, hidden_->data());
}

void Transformer::FeedForwardBlock(const LlamaLayer& layer, int32_t rows) {
  backend_.RmsNorm(*layer.feed_forward_norm, config_.norm_epsilon, hidden_->data(), rows, normed_->data());
  backend_.MatMul({{layer.gate.get(), gate_->data()}, {layer.up.get(), up_->data()}}, normed_->data(), rows);
  backend_.SwiGlu(up_->data(), rows, config_.feed_forward_size, gate_->data());
  backend_.MatMul({{layer.down.get(), delta_->data()}}, gate_->data(), rows);
  backend_.Add(delta_->data(), int64_t{rows} * config_.embedding_size, hidden_->data());
}

}  // namespace fermata
