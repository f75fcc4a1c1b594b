// What a GGUF file says of itself.

#ifndef FERMATA_ENGINE_MODEL_GGUF_MODEL_INFO_H_
#define FERMATA_ENGINE_MODEL_GGUF_MODEL_INFO_H_

#include "absl/status/statusor.h"
#include "engine/model/bpe_tokenizer.h"
#include "engine/model/gguf_file.h"
#include "engine/model/model_info.h"

namespace fermata {

// has_chat_template is left false: the caller knows whether it recognised one. NOT_FOUND if the family or its context
// length is missing.
absl::StatusOr<ModelInfo> DescribeModel(const GgufFile& file, const BpeTokenizer& tokenizer);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_GGUF_MODEL_INFO_H_
