#include "engine/model/gguf_tokenizer.h"

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace fermata {
namespace {

constexpr absl::string_view kTokens = "tokenizer.ggml.tokens";
constexpr absl::string_view kKinds = "tokenizer.ggml.token_type";
constexpr absl::string_view kMerges = "tokenizer.ggml.merges";
constexpr absl::string_view kEndIds[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                         "tokenizer.ggml.eom_token_id"};

absl::StatusOr<TokenId> GetToken(const GgufFile& file, absl::string_view key) {
  const absl::StatusOr<int64_t> value = file.GetInt(key);
  if (!value.ok()) return value.status();
  if (*value < 0 || *value > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": key \"", key, "\" is ", *value));
  }
  return TokenId{static_cast<int32_t>(*value)};
}

absl::StatusOr<BpeVocabulary> ReadVocabulary(const GgufFile& file) {
  BpeVocabulary vocabulary;
  const std::vector<std::string>* tokens = file.FindStrings(kTokens);
  const std::vector<std::string>* merges = file.FindStrings(kMerges);
  if (tokens == nullptr || merges == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": ", tokens == nullptr ? kTokens : kMerges, " is missing, or no array of strings"));
  }
  vocabulary.tokens = *tokens;
  vocabulary.merges = *merges;
  vocabulary.kinds.resize(tokens->size(), TokenKind::kNormal);
  if (const std::vector<int64_t>* kinds = file.FindInts(kKinds)) {
    vocabulary.kinds.clear();
    for (const int64_t kind : *kinds) {
      if (kind < 1 || kind > 6) return absl::InvalidArgumentError(absl::StrCat(file.path(), ": token type ", kind));
      vocabulary.kinds.push_back(static_cast<TokenKind>(kind));
    }
  }
  for (const absl::string_view key : kEndIds) {
    if (!file.Has(key)) continue;
    const absl::StatusOr<TokenId> token = GetToken(file, key);
    if (!token.ok()) return token.status();
    vocabulary.end_of_generation.push_back(*token);
  }
  if (file.Has("tokenizer.ggml.bos_token_id")) {
    const absl::StatusOr<TokenId> token = GetToken(file, "tokenizer.ggml.bos_token_id");
    if (!token.ok()) return token.status();
    vocabulary.bos = *token;
  }
  return vocabulary;
}

}  // namespace

absl::StatusOr<std::unique_ptr<BpeTokenizer>> MakeTokenizer(const GgufFile& file) {
  const absl::StatusOr<std::string> kind = file.GetString("tokenizer.ggml.model");
  if (!kind.ok()) return kind.status();
  if (*kind != "gpt2") {
    return absl::UnimplementedError(
        absl::StrCat(file.path(), ": tokenizer \"", *kind, "\" is not served; byte-level BPE (gpt2) is"));
  }
  const absl::StatusOr<std::string> pretokenizer = file.GetString("tokenizer.ggml.pre");
  if (!pretokenizer.ok()) return pretokenizer.status();
  absl::StatusOr<BpeVocabulary> vocabulary = ReadVocabulary(file);
  if (!vocabulary.ok()) return vocabulary.status();
  vocabulary->pretokenizer = *pretokenizer;
  vocabulary->whole_words_first = *pretokenizer == "llama-bpe";
  // Where the file is silent, what the family does: Llama 3 begins every text with its mark.
  vocabulary->add_bos = file.GetBool("tokenizer.ggml.add_bos_token").value_or(*pretokenizer == "llama-bpe");
  absl::StatusOr<std::unique_ptr<BpeTokenizer>> tokenizer = BpeTokenizer::Create(*vocabulary);
  if (!tokenizer.ok()) {
    return absl::Status(tokenizer.status().code(), absl::StrCat(file.path(), ": ", tokenizer.status().message()));
  }
  return tokenizer;
}

}  // namespace fermata
