#include "engine/model/bpe_tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/core/utf8_stream.h"
#include "engine/model/byte_level.h"

namespace fermata {
namespace {

// Tokens that end a turn or a text in the families served, by their spelling: files do not always list them all.
constexpr absl::string_view kEndSpellings[] = {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>",
                                               "<|eom_id|>"};

// The longest text that is tokenized at once is bounded by the message size; this bounds the merges' 32-bit positions.
constexpr size_t kMaxTextBytes = size_t{1} << 30;

std::string ToValidUtf8(absl::string_view bytes) {
  std::string text;
  Utf8Stream stream;
  stream.Append(bytes, &text);
  stream.Flush(&text);
  return text;
}

}  // namespace

absl::StatusOr<std::unique_ptr<BpeTokenizer>> BpeTokenizer::Create(const BpeVocabulary& vocabulary) {
  std::unique_ptr<BpeTokenizer> tokenizer(new BpeTokenizer);
  absl::StatusOr<std::unique_ptr<Pretokenizer>> pretokenizer = Pretokenizer::ByName(vocabulary.pretokenizer);
  if (!pretokenizer.ok()) return pretokenizer.status();
  tokenizer->pretokenizer_ = *std::move(pretokenizer);
  tokenizer->whole_words_first_ = vocabulary.whole_words_first;
  absl::Status status = tokenizer->AddTokens(vocabulary);
  if (status.ok()) status = tokenizer->AddMerges(vocabulary);
  if (status.ok()) status = tokenizer->AddEnds(vocabulary);
  if (!status.ok()) return status;
  return tokenizer;
}

absl::Status BpeTokenizer::AddTokens(const BpeVocabulary& vocabulary) {
  if (vocabulary.tokens.empty() || vocabulary.tokens.size() != vocabulary.kinds.size()) {
    return absl::InvalidArgumentError(absl::StrCat("the vocabulary has ", vocabulary.tokens.size(), " tokens and ",
                                                   vocabulary.kinds.size(), " token types"));
  }
  output_bytes_.resize(vocabulary.tokens.size());
  spellings_.resize(vocabulary.tokens.size());
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const std::string& spelling = vocabulary.tokens[i];
    const TokenId token{static_cast<int32_t>(i)};
    switch (vocabulary.kinds[i]) {
      case TokenKind::kControl:
      case TokenKind::kUnknown:
        specials_.Add(spelling, token, /*control=*/true);
        spellings_[i] = spelling;
        break;
      case TokenKind::kUserDefined:
        specials_.Add(spelling, token, /*control=*/false);
        output_bytes_[i] = spelling;
        break;
      default: {
        // A token outside the alphabet cannot come from text; what it adds to text is its spelling.
        const std::optional<std::string> bytes = DecodeByteLevel(spelling);
        output_bytes_[i] = bytes.value_or(spelling);
        if (!bytes.has_value()) break;
        words_.try_emplace(*bytes, token);
        if (bytes->size() == 1) byte_tokens_[static_cast<uint8_t>((*bytes)[0])] = token;
      }
    }
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::AddMerges(const BpeVocabulary& vocabulary) {
  for (const std::string& merge : vocabulary.merges) {
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat("merge \"", absl::CHexEscape(merge), "\" is not a pair"));
    }
    const std::optional<std::string> left = DecodeByteLevel(absl::string_view(merge).substr(0, space));
    const std::optional<std::string> right = DecodeByteLevel(absl::string_view(merge).substr(space + 1));
    const auto find = [this](const std::optional<std::string>& bytes) {
      return bytes.has_value() ? words_.find(*bytes) : words_.end();
    };
    const auto left_word = find(left);
    const auto right_word = find(right);
    if (left_word == words_.end() || right_word == words_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("merge \"", absl::CHexEscape(merge), "\" is of tokens that are not in the vocabulary"));
    }
    const auto merged = words_.find(*left + *right);
    if (merged == words_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("merge \"", absl::CHexEscape(merge), "\" makes a token that is not in the vocabulary"));
    }
    merger_.AddRule(left_word->second, right_word->second, merged->second);
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::AddEnds(const BpeVocabulary& vocabulary) {
  const auto check = [&](TokenId token, absl::string_view what) {
    const bool legal = Value(token) >= 0 && Value(token) < vocabulary_size();
    if (legal) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(what, " token id ", Value(token), " is not in the vocabulary of ", vocabulary_size()));
  };
  for (const TokenId token : vocabulary.end_of_generation) {
    const absl::Status status = check(token, "end-of-generation");
    if (!status.ok()) return status;
    end_of_generation_.insert(token);
  }
  for (size_t i = 0; i < spellings_.size(); ++i) {
    if (absl::c_linear_search(kEndSpellings, spellings_[i])) {
      end_of_generation_.insert(TokenId{static_cast<int32_t>(i)});
    }
  }
  if (vocabulary.bos.has_value()) {
    const absl::Status status = check(*vocabulary.bos, "begin-of-text");
    if (!status.ok()) return status;
  }
  bos_ = vocabulary.bos;
  add_bos_ = vocabulary.add_bos && vocabulary.bos.has_value();
  return absl::OkStatus();
}

std::vector<TokenId> BpeTokenizer::end_of_generation() const {
  std::vector<TokenId> tokens(end_of_generation_.begin(), end_of_generation_.end());
  absl::c_sort(tokens);
  return tokens;
}

absl::StatusOr<std::vector<TokenId>> BpeTokenizer::Encode(absl::string_view text, bool parse_special,
                                                          bool add_bos) const {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text has ", text.size(), " bytes; allowed are ", kMaxTextBytes));
  }
  if (ToValidUtf8(text) != text) return absl::InvalidArgumentError("the text is not valid UTF-8");
  std::vector<TokenId> tokens;
  if (add_bos && add_bos_) tokens.push_back(*bos_);
  size_t done = 0;
  while (done < text.size()) {
    const std::optional<SpecialTokens::Match> special = specials_.Find(text, done, parse_special);
    const size_t plain_end = special.has_value() ? special->position : text.size();
    const absl::Status status = EncodePlain(text.substr(done, plain_end - done), &tokens);
    if (!status.ok()) return status;
    if (!special.has_value()) break;
    tokens.push_back(special->token);
    done = special->position + special->size;
  }
  return tokens;
}

absl::Status BpeTokenizer::EncodePlain(absl::string_view text, std::vector<TokenId>* tokens) const {
  const absl::StatusOr<std::vector<absl::string_view>> words = pretokenizer_->Split(text);
  if (!words.ok()) return words.status();
  for (const absl::string_view word : *words) {
    const absl::Status status = EncodeWord(word, tokens);
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::EncodeWord(absl::string_view word, std::vector<TokenId>* tokens) const {
  if (whole_words_first_) {
    const auto whole = words_.find(word);
    if (whole != words_.end()) {
      tokens->push_back(whole->second);
      return absl::OkStatus();
    }
  }
  std::vector<TokenId> parts;
  parts.reserve(word.size());
  for (const char c : word) {
    const std::optional<TokenId>& token = byte_tokens_[static_cast<uint8_t>(c)];
    if (!token.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat("the text contains byte ",
                                                     static_cast<int>(static_cast<uint8_t>(c)),
                                                     ", for which the vocabulary has no token"));
    }
    parts.push_back(*token);
  }
  merger_.Merge(&parts);
  tokens->insert(tokens->end(), parts.begin(), parts.end());
  return absl::OkStatus();
}

absl::StatusOr<std::string> BpeTokenizer::Decode(absl::Span<const TokenId> tokens) const {
  std::string bytes;
  for (const TokenId token : tokens) {
    if (Value(token) < 0 || Value(token) >= vocabulary_size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id ", Value(token), " is not in the vocabulary: 0 to ", vocabulary_size() - 1));
    }
    bytes += output_bytes_[Value(token)];
    bytes += spellings_[Value(token)];
  }
  return ToValidUtf8(bytes);
}

}  // namespace fermata
