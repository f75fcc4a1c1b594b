// The tokenizer that a GGUF file describes.

#ifndef FERMATA_ENGINE_MODEL_GGUF_TOKENIZER_H_
#define FERMATA_ENGINE_MODEL_GGUF_TOKENIZER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/model/bpe_tokenizer.h"
#include "engine/model/gguf_file.h"

namespace fermata {

// Copies what it needs. INVALID_ARGUMENT or NOT_FOUND if the metadata are incomplete or inconsistent, UNIMPLEMENTED for
// a kind of tokenizer that is not served; each names the file.
absl::StatusOr<std::unique_ptr<BpeTokenizer>> MakeTokenizer(const GgufFile& file);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_GGUF_TOKENIZER_H_
