#include "tests/model/logits_driver.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "engine/model/gguf_tokenizer.h"
#include "engine/model/gguf_weights.h"
#include "engine/model/hf_config.h"
#include "engine/model/safetensors_weights.h"
#include "glog/logging.h"

namespace fermata {
namespace {

template <typename T>
T Must(absl::StatusOr<T> value) {
  CHECK(value.ok()) << value.status();
  return *std::move(value);
}

}  // namespace

LogitsDriver::Opened LogitsDriver::Open(const std::string& path) {
  Opened opened;
  if (std::filesystem::is_directory(path)) {
    HfConfig config = Must(ReadHfConfig(path));
    opened.source = Must(SafetensorsWeights::Open(path, config.tied));
    opened.config = std::move(config.llama);
    return opened;
  }
  opened.file = Must(GgufFile::Open(path));
  opened.source = std::make_unique<GgufWeights>(*opened.file);
  opened.config = Must(ReadLlamaConfig(*opened.file, Must(MakeTokenizer(*opened.file))->vocabulary_size()));
  return opened;
}

LogitsDriver::LogitsDriver(const std::string& path, const kernels::CpuBackendOptions& backend_options)
    : LogitsDriver(path, std::make_unique<kernels::CpuBackend>(backend_options)) {}

LogitsDriver::LogitsDriver(const std::string& path, std::unique_ptr<kernels::Backend> backend)
    : LogitsDriver(Open(path), std::move(backend)) {}

LogitsDriver::LogitsDriver(Opened opened, std::unique_ptr<kernels::Backend> backend)
    : file_(std::move(opened.file)),
      source_(std::move(opened.source)),
      config_(std::move(opened.config)),
      backend_(std::move(backend)),
      weights_(Must(LoadLlamaWeights(*source_, config_, *backend_))),
      transformer_(Must(Transformer::Create(config_, weights_, *backend_, kMaxRows, /*max_outputs=*/kMaxRows))) {
  const absl::Status kv = backend_->AllocateKv({.block_count = kBlockCount,
                                                .block_tokens = kBlockTokens,
                                                .layer_count = config_.layer_count,
                                                .kv_head_count = config_.kv_head_count,
                                                .head_size = config_.head_size});
  CHECK(kv.ok()) << kv;
}

ForcedSequence LogitsDriver::Begin(const std::vector<int32_t>& tokens, int32_t first_output) {
  ForcedSequence sequence;
  sequence.tokens = tokens;
  sequence.first_output = first_output;
  for (size_t covered = 0; covered < tokens.size(); covered += kBlockTokens) {
    CHECK_GT(next_block_, 0) << "the test's pool is too small";
    sequence.blocks.push_back(--next_block_);
  }
  return sequence;
}

void LogitsDriver::Step(const std::vector<ForcedSequence*>& sequences, const std::vector<int32_t>& counts) {
  std::vector<int32_t> tokens;
  std::vector<kernels::Segment> segments;
  std::vector<int32_t> output_rows;
  std::vector<ForcedSequence*> output_owners;
  for (size_t i = 0; i < sequences.size(); ++i) {
    ForcedSequence& sequence = *sequences[i];
    segments.push_back({.first_row = static_cast<int32_t>(tokens.size()),
                        .row_count = counts[i],
                        .first_position = sequence.computed,
                        .blocks = sequence.blocks.data()});
    for (int32_t n = 0; n < counts[i]; ++n, ++sequence.computed) {
      if (sequence.computed >= sequence.first_output) {
        output_rows.push_back(static_cast<int32_t>(tokens.size()));
        output_owners.push_back(&sequence);
      }
      tokens.push_back(sequence.tokens[sequence.computed]);
    }
  }
  const absl::Span<const float> logits = Must(transformer_->Forward(tokens, segments, output_rows));
  for (size_t n = 0; n < output_owners.size(); ++n) {
    const absl::Span<const float> row = logits.subspan(n * config_.vocabulary_size, config_.vocabulary_size);
    output_owners[n]->logits.emplace_back(row.begin(), row.end());
  }
}

void LogitsDriver::Run(ForcedSequence& sequence, int32_t chunk) {
  while (sequence.computed < static_cast<int32_t>(sequence.tokens.size())) {
    Step({&sequence}, {std::min(chunk, static_cast<int32_t>(sequence.tokens.size()) - sequence.computed)});
  }
}

}  // namespace fermata
