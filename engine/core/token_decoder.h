// What the engine must know of a vocabulary to decide, inside the step, whether a generation stops and which text it
// has produced. engine/model implements it; tests have a small one of their own.

#ifndef FERMATA_ENGINE_CORE_TOKEN_DECODER_H_
#define FERMATA_ENGINE_CORE_TOKEN_DECODER_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "engine/core/ids.h"

namespace fermata {

// Immutable after construction; all methods may be called from any thread.
class TokenDecoder {
 public:
  virtual ~TokenDecoder() = default;

  // Number of tokens; legal ids are below it.
  virtual int32_t vocabulary_size() const = 0;

  // The bytes that `token` adds to the output text: possibly a part of a UTF-8 character, empty for control tokens such
  // as an end-of-turn mark. The view lives as long as the decoder.
  virtual absl::string_view Bytes(TokenId token) const = 0;

  // True for the tokens at which the model itself ends (end of text, end of turn).
  virtual bool IsEndOfGeneration(TokenId token) const = 0;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_TOKEN_DECODER_H_
