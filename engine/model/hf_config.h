// What the config.json of a safetensors folder says of its model.

#ifndef FERMATA_ENGINE_MODEL_HF_CONFIG_H_
#define FERMATA_ENGINE_MODEL_HF_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/ids.h"
#include "engine/model/llama_config.h"

namespace fermata {

struct HfConfig {
  LlamaConfig llama;
  std::string family;  // model_type: "llama", "mistral", "qwen2" or "qwen3"
  int32_t context_length = 0;
  bool tied = false;  // the output matrix is the embedding
  std::vector<TokenId> end_of_generation;
};

// Reads FOLDER/config.json, and the end tokens of FOLDER/generation_config.json where there is one. NOT_FOUND,
// INVALID_ARGUMENT naming file and field, or UNIMPLEMENTED for a family, activation, quantisation, sliding window or
// rope scaling (linear and llama3 are served) that is not served.
absl::StatusOr<HfConfig> ReadHfConfig(const std::string& folder);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_HF_CONFIG_H_
