// Text to tokens and back: byte-level BPE with the pre-tokenizer that the model was trained with.

#ifndef FERMATA_ENGINE_MODEL_TOKENIZER_H_
#define FERMATA_ENGINE_MODEL_TOKENIZER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/core/ids.h"
#include "engine/core/token_decoder.h"

namespace fermata {

// Immutable after construction; all methods may be called from any thread.
class Tokenizer : public TokenDecoder {
 public:
  // Tokens of `text`, which is valid UTF-8. Where `parse_special` is true, the spelling of a special token (such as
  // "<|im_end|>") becomes that token. Adds the model's begin-of-text token in front where the model asks for one and
  // `add_bos` is true. INVALID_ARGUMENT if some part of the text cannot be tokenized.
  virtual absl::StatusOr<std::vector<TokenId>> Encode(absl::string_view text, bool parse_special,
                                                      bool add_bos) const = 0;

  // The bytes of `tokens` put together, special tokens by their spelling; bytes that are not valid UTF-8 become U+FFFD.
  // INVALID_ARGUMENT if an id is not below vocabulary_size().
  virtual absl::StatusOr<std::string> Decode(absl::Span<const TokenId> tokens) const = 0;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_TOKENIZER_H_
