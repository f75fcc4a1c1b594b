#include "engine/model/hf_folder.h"

#include <filesystem>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/dummy_weights.h"
#include "engine/model/hf_config.h"
#include "engine/model/hf_tokenizer.h"
#include "engine/model/safetensors_weights.h"

namespace fermata {
namespace {

std::string FolderName(const std::string& folder) {
  const std::filesystem::path path = std::filesystem::path(folder).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

int64_t ParameterCount(const LlamaConfig& config, bool tied) {
  const int64_t embedding = config.embedding_size;
  const int64_t query = int64_t{config.head_count} * config.head_size;
  const int64_t key = int64_t{config.kv_head_count} * config.head_size;
  const int64_t layer =
      2 * embedding * (query + key) + int64_t{3} * embedding * config.feed_forward_size + 2 * embedding;
  return config.layer_count * layer + (tied ? 1 : 2) * embedding * config.vocabulary_size + embedding;
}

absl::StatusOr<std::unique_ptr<BpeTokenizer>> OpenTokenizer(const std::string& folder, const HfConfig& config,
                                                            bool dummy) {
  absl::StatusOr<std::unique_ptr<BpeTokenizer>> tokenizer =
      ReadHfTokenizer(folder, config.llama.vocabulary_size, config.end_of_generation);
  if (!dummy || !absl::IsNotFound(tokenizer.status())) return tokenizer;
  return MakeByteTokenizer(config.llama.vocabulary_size, config.end_of_generation);
}

}  // namespace

absl::StatusOr<HfModel> OpenHfFolder(const std::string& folder, bool dummy_weights) {
  absl::StatusOr<HfConfig> config = ReadHfConfig(folder);
  if (!config.ok()) return config.status();
  absl::StatusOr<std::unique_ptr<BpeTokenizer>> tokenizer = OpenTokenizer(folder, *config, dummy_weights);
  if (!tokenizer.ok()) return tokenizer.status();
  HfModel model;
  model.info.name = FolderName(folder);
  model.info.family = config->family;
  model.info.context_length = config->context_length;
  model.info.vocabulary_size = config->llama.vocabulary_size;
  if ((*tokenizer)->bos().has_value()) model.info.bos_token_ids.push_back(*(*tokenizer)->bos());
  model.info.end_of_generation_token_ids = (*tokenizer)->end_of_generation();
  model.chat_template = ReadHfChatTemplate(folder);
  if (dummy_weights) {
    model.source = std::make_unique<DummyWeights>(folder, config->tied);
    model.info.quantization = "BF16";
    model.info.parameter_count = ParameterCount(config->llama, config->tied);
  } else {
    absl::StatusOr<std::unique_ptr<SafetensorsWeights>> weights = SafetensorsWeights::Open(folder, config->tied);
    if (!weights.ok()) return weights.status();
    if (!config->tied && !(*weights)->Has("output.weight")) {
      return absl::NotFoundError(
          absl::StrCat(folder, ": tensor \"lm_head.weight\" is missing, and tie_word_embeddings is not true"));
    }
    model.info.quantization = (*weights)->main_type();
    model.info.parameter_count = (*weights)->element_count();
    model.source = *std::move(weights);
  }
  model.config = std::move(config->llama);
  model.tokenizer = *std::move(tokenizer);
  return absl::StatusOr<HfModel>(std::move(model));
}

}  // namespace fermata
