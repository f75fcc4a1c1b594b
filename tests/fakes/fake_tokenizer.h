// A tokenizer over the vocabulary of FakeTokenDecoder: one token for each byte of text.

#ifndef FERMATA_TESTS_FAKES_FAKE_TOKENIZER_H_
#define FERMATA_TESTS_FAKES_FAKE_TOKENIZER_H_

#include <string>
#include <vector>

#include "engine/model/tokenizer.h"
#include "tests/fakes/fake_token_decoder.h"

namespace fermata {

// Lower-case letters, blanks and line ends are tokens of their own and survive Encode and Decode; every other byte
// becomes some letter. Knows no special tokens and puts nothing first.
class FakeTokenizer : public Tokenizer {
 public:
  int32_t vocabulary_size() const override { return decoder_.vocabulary_size(); }
  absl::string_view Bytes(TokenId token) const override { return decoder_.Bytes(token); }
  bool IsEndOfGeneration(TokenId token) const override { return decoder_.IsEndOfGeneration(token); }

  absl::StatusOr<std::vector<TokenId>> Encode(absl::string_view text, bool parse_special, bool add_bos) const override;
  absl::StatusOr<std::string> Decode(absl::Span<const TokenId> tokens) const override;

 private:
  FakeTokenDecoder decoder_;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_FAKES_FAKE_TOKENIZER_H_
