#include "tests/fakes/tiny_tokenizer.h"

#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "engine/model/byte_level.h"
#include "glog/logging.h"

namespace fermata {
namespace {

// Pairs of bytes or of earlier merges. The last two are a letter of two bytes and a blank before a merge.
const std::pair<std::string, std::string> kMerges[] = {{"t", "h"},   {"th", "e"}, {"i", "n"},       {"a", "a"},
                                                       {"aa", "aa"}, {"1", "2"},  {"\xC3", "\xA9"}, {" ", "the"}};

std::string Spell(const std::string& bytes) {
  std::string spelling;
  for (const char c : bytes) spelling += EncodeByteLevel(static_cast<uint8_t>(c));
  return spelling;
}

std::unique_ptr<BpeTokenizer> Make(const std::string& pretokenizer) {
  BpeVocabulary vocabulary;
  vocabulary.pretokenizer = pretokenizer;
  for (int byte = 0; byte < 256; ++byte) vocabulary.tokens.push_back(EncodeByteLevel(static_cast<uint8_t>(byte)));
  for (const auto& [left, right] : kMerges) {
    vocabulary.merges.push_back(Spell(left) + " " + Spell(right));
    vocabulary.tokens.push_back(Spell(left + right));
  }
  vocabulary.kinds.assign(vocabulary.tokens.size(), TokenKind::kNormal);
  vocabulary.tokens.push_back("<tool>");
  vocabulary.kinds.push_back(TokenKind::kUserDefined);
  for (const char* control : {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>",
                              "<|end_header_id|>", "<|eot_id|>"}) {
    vocabulary.tokens.push_back(control);
    vocabulary.kinds.push_back(TokenKind::kControl);
  }
  absl::StatusOr<std::unique_ptr<BpeTokenizer>> tokenizer = BpeTokenizer::Create(vocabulary);
  CHECK(tokenizer.ok()) << std::string(tokenizer.status().message());
  return *std::move(tokenizer);
}

}  // namespace

const BpeTokenizer& TinyTokenizer(const std::string& pretokenizer) {
  static auto* const made = new std::map<std::string, std::unique_ptr<BpeTokenizer>>;
  std::unique_ptr<BpeTokenizer>& tokenizer = (*made)[pretokenizer];
  if (tokenizer == nullptr) tokenizer = Make(pretokenizer);
  return *tokenizer;
}

}  // namespace fermata
