// What clients may know of the model: the answer of GetModel.

#ifndef FERMATA_ENGINE_MODEL_MODEL_INFO_H_
#define FERMATA_ENGINE_MODEL_MODEL_INFO_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/core/ids.h"

namespace fermata {

struct ModelInfo {
  std::string name;          // as the file says, or the file's name without its ending
  std::string family;        // "llama", ...
  std::string quantization;  // of most weights: "Q4_1", "F16", ...
  int64_t parameter_count = 0;
  int32_t context_length = 0;  // tokens the model was made for
  int32_t vocabulary_size = 0;
  bool has_chat_template = false;                    // one that Fermata recognises
  std::vector<TokenId> bos_token_ids;                // at most one
  std::vector<TokenId> end_of_generation_token_ids;  // at which the model ends by itself
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_MODEL_INFO_H_
