// Byte-level BPE, as model files describe it.

#ifndef FERMATA_ENGINE_MODEL_BPE_TOKENIZER_H_
#define FERMATA_ENGINE_MODEL_BPE_TOKENIZER_H_

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/bpe_merger.h"
#include "engine/model/pretokenizer.h"
#include "engine/model/special_tokens.h"
#include "engine/model/tokenizer.h"

namespace fermata {

// What a token is, with the values that model files use.
enum class TokenKind { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

// The parts of a vocabulary.
struct BpeVocabulary {
  std::vector<std::string> tokens;  // in the byte-level alphabet; control and user-defined ones as they are spelled
  std::vector<TokenKind> kinds;     // as many as tokens
  std::vector<std::string> merges;  // "left right", in order of rank
  std::string pretokenizer;         // a name that Pretokenizer knows
  bool whole_words_first = false;   // a word that is a token is that token, whatever the merges say
  std::optional<TokenId> bos;       // begins a text, if add_bos
  bool add_bos = false;
  std::vector<TokenId> end_of_generation;  // besides those that are known by their spelling
};

class BpeTokenizer : public Tokenizer {
 public:
  // INVALID_ARGUMENT if the parts do not fit together, UNIMPLEMENTED for a pre-tokenizer that is not known.
  static absl::StatusOr<std::unique_ptr<BpeTokenizer>> Create(const BpeVocabulary& vocabulary);

  absl::StatusOr<std::vector<TokenId>> Encode(absl::string_view text, bool parse_special, bool add_bos) const override;
  absl::StatusOr<std::string> Decode(absl::Span<const TokenId> tokens) const override;
  int32_t vocabulary_size() const override { return static_cast<int32_t>(output_bytes_.size()); }
  absl::string_view Bytes(TokenId token) const override { return output_bytes_[Value(token)]; }
  bool IsEndOfGeneration(TokenId token) const override { return end_of_generation_.contains(token); }

  std::optional<TokenId> bos() const { return bos_; }

  // In order of their ids.
  std::vector<TokenId> end_of_generation() const;

 private:
  BpeTokenizer() = default;

  // The parts of Create().
  absl::Status AddTokens(const BpeVocabulary& vocabulary);
  absl::Status AddMerges(const BpeVocabulary& vocabulary);
  absl::Status AddEnds(const BpeVocabulary& vocabulary);

  // Tokens of text that has no special token in it.
  absl::Status EncodePlain(absl::string_view text, std::vector<TokenId>* tokens) const;
  absl::Status EncodeWord(absl::string_view word, std::vector<TokenId>* tokens) const;

  std::unique_ptr<Pretokenizer> pretokenizer_;
  BpeMerger merger_;
  SpecialTokens specials_;
  absl::flat_hash_map<std::string, TokenId> words_;  // by their bytes: words that are one token whatever the merges say
  bool whole_words_first_ = false;                   // llama-bpe looks there before it merges
  std::array<std::optional<TokenId>, 256> byte_tokens_;
  std::vector<std::string> output_bytes_;  // what a token adds to output text
  std::vector<std::string> spellings_;     // of the tokens that add nothing to it
  absl::flat_hash_set<TokenId> end_of_generation_;
  std::optional<TokenId> bos_;
  bool add_bos_ = false;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_BPE_TOKENIZER_H_
