#include "tests/fakes/fake_tokenizer.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/core/utf8_stream.h"

namespace fermata {
namespace {

constexpr TokenId kBlank{40};
constexpr TokenId kLineEnd{41};
constexpr int kLetterCount = 26;

TokenId TokenOf(unsigned char byte) {
  if (byte >= 'a' && byte <= 'z') return TokenId{byte - 'a'};
  if (byte == ' ') return kBlank;
  if (byte == '\n') return kLineEnd;
  return TokenId{byte % kLetterCount};
}

}  // namespace

absl::StatusOr<std::vector<TokenId>> FakeTokenizer::Encode(absl::string_view text, bool parse_special,
                                                           bool add_bos) const {
  std::vector<TokenId> tokens;
  tokens.reserve(text.size());
  for (const char byte : text) tokens.push_back(TokenOf(static_cast<unsigned char>(byte)));
  return tokens;
}

absl::StatusOr<std::string> FakeTokenizer::Decode(absl::Span<const TokenId> tokens) const {
  Utf8Stream stream;
  std::string text;
  for (const TokenId token : tokens) {
    if (Value(token) < 0 || Value(token) >= vocabulary_size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "token id ", Value(token), " is not in the vocabulary; allowed are 0 to ", vocabulary_size() - 1));
    }
    stream.Append(Bytes(token), &text);
  }
  stream.Flush(&text);
  return text;
}

}  // namespace fermata
