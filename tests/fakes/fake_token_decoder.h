// A vocabulary of 64 tokens, made to be awkward: parts of UTF-8 characters, bytes that are none, tokens without text.

#ifndef FERMATA_TESTS_FAKES_FAKE_TOKEN_DECODER_H_
#define FERMATA_TESTS_FAKES_FAKE_TOKEN_DECODER_H_

#include <string>
#include <vector>

#include "engine/core/token_decoder.h"

namespace fermata {

class FakeTokenDecoder : public TokenDecoder {
 public:
  static constexpr int32_t kVocabularySize = 64;
  static constexpr TokenId kEnd{63};  // ends a generation, has no text

  FakeTokenDecoder();

  int32_t vocabulary_size() const override { return kVocabularySize; }
  absl::string_view Bytes(TokenId token) const override { return bytes_[Value(token)]; }
  bool IsEndOfGeneration(TokenId token) const override { return token == kEnd; }

 private:
  std::vector<std::string> bytes_;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_FAKES_FAKE_TOKEN_DECODER_H_
