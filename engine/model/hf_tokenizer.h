// The tokenizer that a tokenizer.json describes.

#ifndef FERMATA_ENGINE_MODEL_HF_TOKENIZER_H_
#define FERMATA_ENGINE_MODEL_HF_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/ids.h"
#include "engine/model/bpe_tokenizer.h"

namespace fermata {

// Reads FOLDER/tokenizer.json, and of FOLDER/tokenizer_config.json (which may be missing) the begin-of-text token.
// Byte-level BPE alone. Ids up to `vocabulary_size`, the model's, that the file leaves out become tokens without text.
// The NFC normalisation that some files ask for is not done: text is taken as it comes. NOT_FOUND, INVALID_ARGUMENT
// naming the file and what is wrong, or UNIMPLEMENTED for what is not served.
absl::StatusOr<std::unique_ptr<BpeTokenizer>> ReadHfTokenizer(const std::string& folder, int32_t vocabulary_size,
                                                              const std::vector<TokenId>& end_of_generation);

// One token for each byte; those up to `vocabulary_size` that are left have no text. For models without a tokenizer. A
// vocabulary of less than 256 lacks some bytes, and text that has them is refused.
absl::StatusOr<std::unique_ptr<BpeTokenizer>> MakeByteTokenizer(int32_t vocabulary_size,
                                                                const std::vector<TokenId>& end_of_generation);

// The chat template: FOLDER/chat_template.jinja, or "chat_template" of FOLDER/tokenizer_config.json. Empty if there is
// none, or no single one.
std::string ReadHfChatTemplate(const std::string& folder);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_HF_TOKENIZER_H_
