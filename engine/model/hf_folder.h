// A model in a folder: config.json, safetensors, tokenizer.json.

#ifndef FERMATA_ENGINE_MODEL_HF_FOLDER_H_
#define FERMATA_ENGINE_MODEL_HF_FOLDER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/model/llama_config.h"
#include "engine/model/model_info.h"
#include "engine/model/tokenizer.h"
#include "engine/model/weight_source.h"

namespace fermata {

struct HfModel {
  LlamaConfig config;
  ModelInfo info;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<WeightSource> source;
  std::string chat_template;  // empty: none
};

// With `dummy_weights` config.json is enough: weights are made up, and without a tokenizer.json there is one token for
// each byte. Errors name the file and what is wrong.
absl::StatusOr<HfModel> OpenHfFolder(const std::string& folder, bool dummy_weights);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_HF_FOLDER_H_
