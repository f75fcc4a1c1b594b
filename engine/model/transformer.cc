#include "engine/model/transformer.h"

#include <algorithm>
#include <utility>

#include "glog/logging.h"

namespace fermata {
namespace {

// Above, a step is so long that asking for it takes no time beside it.
constexpr int32_t kMaxRecordedRows = 512;

// From one count of rows that is kept to the next: rows that nobody needs cost little then.
int32_t RowsToNextRecorded(int32_t rows) { return rows < 16 ? rows : rows < 128 ? 16 : rows < 256 ? 32 : 64; }

}  // namespace

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Create(const LlamaConfig& config, const LlamaWeights& weights,
                                                                 kernels::Backend& backend, int32_t max_rows,
                                                                 int32_t max_outputs) {
  std::unique_ptr<Transformer> transformer(new Transformer(config, weights, backend, max_rows, max_outputs));
  absl::Status status = backend.SetRope(config.rope_frequencies);
  if (status.ok()) status = transformer->AllocateBuffers();
  if (!status.ok()) return status;
  return transformer;
}

absl::Status Transformer::AllocateBuffers() {
  const int64_t query_size = int64_t{config_.head_count} * config_.head_size;
  const int64_t kv_size = int64_t{config_.kv_head_count} * config_.head_size;
  const std::pair<std::unique_ptr<kernels::Buffer>*, int64_t> buffers[] = {
      {&hidden_, max_rows_ * int64_t{config_.embedding_size}},
      {&normed_, max_rows_ * int64_t{config_.embedding_size}},
      {&delta_, max_rows_ * int64_t{config_.embedding_size}},
      {&attention_, max_rows_ * query_size},
  };
  for (const auto& [buffer, size] : buffers) {
    absl::StatusOr<std::unique_ptr<kernels::Buffer>> allocated = backend_.Allocate(size);
    if (!allocated.ok()) return allocated.status();
    *buffer = *std::move(allocated);
  }
  auto inputs = backend_.AllocateTogether(max_rows_, {query_size, kv_size, kv_size});
  if (!inputs.ok()) return inputs.status();
  query_ = std::move((*inputs)[0]);
  key_ = std::move((*inputs)[1]);
  value_ = std::move((*inputs)[2]);
  inputs = backend_.AllocateTogether(max_rows_, {config_.feed_forward_size, config_.feed_forward_size});
  if (!inputs.ok()) return inputs.status();
  gate_ = std::move((*inputs)[0]);
  up_ = std::move((*inputs)[1]);
  absl::StatusOr<std::unique_ptr<kernels::Buffer>> logits =
      backend_.AllocateFloats(max_outputs_ * int64_t{config_.vocabulary_size});
  if (!logits.ok()) return logits.status();
  logits_ = *std::move(logits);
  return absl::OkStatus();
}

absl::Status Transformer::Tune() {
  using Products = std::vector<kernels::Backend::Product>;
  std::vector<Products> inputs, outputs, up, down;
  for (const LlamaLayer& layer : weights_.layers) {
    inputs.push_back(AttentionInputs(layer));
    outputs.push_back(AttentionOutput(layer));
    up.push_back(FeedForwardInputs(layer));
    down.push_back(FeedForwardOutput(layer));
  }
  absl::Status status = backend_.TuneMatMul(inputs, *normed_, max_rows_);
  if (status.ok()) status = backend_.TuneMatMul(outputs, *attention_, max_rows_);
  if (status.ok()) status = backend_.TuneGatedMatMul(up, *normed_, max_rows_);
  if (status.ok()) status = backend_.TuneMatMul(down, *gate_, max_rows_);
  if (!status.ok()) return status;
  status = backend_.TuneMatMul({{{&weights_.output(), logits_.get()}}}, *normed_, max_outputs_);
  if (status.ok()) status = Record();
  return status;
}

absl::Status Transformer::Record() {
  const int32_t most = std::min({max_rows_, max_outputs_, kMaxRecordedRows});
  for (int32_t rows = 1; rows <= most;
       rows = rows == most ? most + 1 : std::min(rows + RowsToNextRecorded(rows), most)) {
    const std::vector<int32_t> tokens(static_cast<size_t>(rows), 0);
    const absl::Status status = backend_.Record(rows, [&] { Ask(tokens, tokens); });
    if (absl::IsUnimplemented(status)) return absl::OkStatus();
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::Span<const float>> Transformer::Forward(absl::Span<const int32_t> tokens,
                                                             absl::Span<const kernels::Segment> segments,
                                                             absl::Span<const int32_t> output_rows) {
  const absl::StatusOr<Outputs> outputs = Forward(tokens, segments, output_rows, {});
  if (!outputs.ok()) return outputs.status();
  return outputs->logits;
}

absl::StatusOr<Transformer::Outputs> Transformer::Forward(absl::Span<const int32_t> tokens,
                                                          absl::Span<const kernels::Segment> segments,
                                                          absl::Span<const int32_t> output_rows,
                                                          absl::Span<const kernels::Backend::Draw> draws,
                                                          absl::Span<const kernels::Backend::Selection> selections,
                                                          absl::Span<const kernels::Backend::LogitChange> changes,
                                                          const std::function<void()>& launched) {
  CHECK(!tokens.empty());
  const bool replayed = backend_.Replay(segments, tokens, output_rows);
  if (launched) launched();
  if (!replayed) {
    backend_.BeginStep(segments);
    Ask(tokens, output_rows);
  }
  if (output_rows.empty()) {
    const absl::Status status = backend_.Synchronize();
    if (!status.ok()) return status;
    return Outputs();
  }
  const int32_t selected = static_cast<int32_t>(output_rows.size() - draws.size());
  const int32_t copied = selected - static_cast<int32_t>(selections.size());
  Outputs result;
  if (copied > 0) {
    const absl::StatusOr<absl::Span<const float>> logits =
        backend_.ToHost(*logits_, int64_t{copied} * config_.vocabulary_size);
    if (!logits.ok()) return logits.status();
    result.logits = *logits;
  }
  if (!selections.empty()) {
    const auto tokens_selected = backend_.SelectTokens(*logits_, copied, config_.vocabulary_size, selections, changes);
    if (!tokens_selected.ok()) return tokens_selected.status();
    result.selected = *tokens_selected;
  }
  if (!draws.empty()) {
    const absl::StatusOr<absl::Span<const int32_t>> drawn =
        backend_.DrawTokens(*logits_, selected, config_.vocabulary_size, draws);
    if (!drawn.ok()) return drawn.status();
    result.tokens = *drawn;
  }
  return result;
}

void Transformer::Ask(absl::Span<const int32_t> tokens, absl::Span<const int32_t> output_rows) {
  const int32_t rows = static_cast<int32_t>(tokens.size());
  backend_.Embed(*weights_.token_embedding, tokens, *hidden_);
  backend_.RmsNorm(*weights_.layers[0].attention_norm, config_.norm_epsilon, *hidden_, rows, *normed_);
  backend_.MatMul(AttentionInputs(weights_.layers[0]), *normed_, rows);
  for (int32_t i = 0; i < config_.layer_count; ++i) {
    const LlamaLayer& layer = weights_.layers[i];
    const LlamaLayer* next = i + 1 < config_.layer_count ? &weights_.layers[static_cast<size_t>(i) + 1] : nullptr;
    Attend(layer, i, rows);
    if (!backend_.PassLayer(Passage(layer, next), rows)) PassLayer(layer, next, rows);
  }
  if (output_rows.empty()) return;
  // Only the rows that are sampled go through the output matrix, the largest of all.
  const int32_t outputs = static_cast<int32_t>(output_rows.size());
  backend_.GatherRows(*hidden_, output_rows, config_.embedding_size, *delta_);
  backend_.RmsNorm(*weights_.output_norm, config_.norm_epsilon, *delta_, outputs, *normed_);
  backend_.MatMul({{&weights_.output(), logits_.get()}}, *normed_, outputs);
}

std::vector<kernels::Backend::Product> Transformer::AttentionInputs(const LlamaLayer& layer) const {
  return {{layer.query.get(), query_.get()}, {layer.key.get(), key_.get()}, {layer.value.get(), value_.get()}};
}

std::vector<kernels::Backend::Product> Transformer::AttentionOutput(const LlamaLayer& layer) const {
  return {{layer.attention_output.get(), delta_.get()}};
}

std::vector<kernels::Backend::Product> Transformer::FeedForwardInputs(const LlamaLayer& layer) const {
  return {{layer.gate.get(), gate_.get()}, {layer.up.get(), up_.get()}};
}

std::vector<kernels::Backend::Product> Transformer::FeedForwardOutput(const LlamaLayer& layer) const {
  return {{layer.down.get(), delta_.get()}};
}

kernels::Backend::LayerPassage Transformer::Passage(const LlamaLayer& layer, const LlamaLayer* next) const {
  kernels::Backend::LayerPassage passage;
  passage.attention_output = layer.attention_output.get();
  passage.feed_forward_norm = layer.feed_forward_norm.get();
  passage.gate = {layer.gate.get(), gate_.get()};
  passage.up = {layer.up.get(), up_.get()};
  passage.down = layer.down.get();
  if (next != nullptr) {
    passage.next_norm = next->attention_norm.get();
    passage.next_inputs = AttentionInputs(*next);
  }
  passage.epsilon = config_.norm_epsilon;
  passage.attention = attention_.get();
  passage.hidden = hidden_.get();
  passage.normed = normed_.get();
  return passage;
}

void Transformer::Attend(const LlamaLayer& layer, int32_t index, int32_t rows) {
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
}

void Transformer::PassLayer(const LlamaLayer& layer, const LlamaLayer* next, int32_t rows) {
  backend_.MatMul(AttentionOutput(layer), *attention_, rows);
  backend_.AddRmsNorm(*layer.feed_forward_norm, config_.norm_epsilon, *delta_, rows, *hidden_, *normed_);
  const std::vector<kernels::Backend::Product> inputs = FeedForwardInputs(layer);
  backend_.GatedMatMul(inputs[0], inputs[1], *normed_, rows);
  backend_.MatMul(FeedForwardOutput(layer), *gate_, rows);
  if (next == nullptr) {
    backend_.Add(*delta_, int64_t{rows} * config_.embedding_size, *hidden_);
    return;
  }
  backend_.AddRmsNorm(*next->attention_norm, config_.norm_epsilon, *delta_, rows, *hidden_, *normed_);
  backend_.MatMul(AttentionInputs(*next), *normed_, rows);
}

}  // namespace fermata
