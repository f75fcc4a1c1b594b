#include "engine/model/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "glog/logging.h"

namespace fermata {
namespace {

// Digits one by one.
constexpr char kDigits[] = R"(\p{N})";

// English contractions; letters, digits and others each with one space before; white space, of which the last one is
// left to the word that follows.
constexpr char kGpt2[] = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// The same idea with up to three digits together, line ends kept with what they end, and any sign before a word.
constexpr char kLlamaBpe[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

// As llama-bpe, but digits one by one: the model's own definition (Qwen2's tokenizer.json).
constexpr char kQwen2[] = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
                          R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct MatchDataDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

}  // namespace

class Pretokenizer::Pattern {
 public:
  explicit Pattern(const char* expression) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression), PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                          &error, &offset, nullptr);
    CHECK(code_ != nullptr) << "pattern does not compile at " << offset << ": " << expression;
    // Without a just-in-time compiler the interpreter serves.
    pcre2_jit_compile(code_, PCRE2_JIT_COMPLETE);
  }
  ~Pattern() { pcre2_code_free(code_); }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  absl::Status Split(absl::string_view text, std::vector<absl::string_view>* pieces) const {
    const std::unique_ptr<pcre2_match_data, MatchDataDeleter> match(
        pcre2_match_data_create_from_pattern(code_, nullptr));
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    size_t done = 0;
    while (done < text.size()) {
      const int result = pcre2_match(code_, subject, text.size(), done, PCRE2_NO_UTF_CHECK, match.get(), nullptr);
      if (result == PCRE2_ERROR_NOMATCH) break;
      if (result < 0) {
        return absl::ResourceExhaustedError(absl::StrCat("the text cannot be cut into words: PCRE2 error ", result));
      }
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match.get());
      if (range[0] > done) pieces->push_back(text.substr(done, range[0] - done));
      pieces->push_back(text.substr(range[0], range[1] - range[0]));
      done = range[1];
    }
    if (done < text.size()) pieces->push_back(text.substr(done));
    return absl::OkStatus();
  }

 private:
  pcre2_code* code_;
};

Pretokenizer::Pretokenizer() = default;
Pretokenizer::~Pretokenizer() = default;

absl::StatusOr<std::unique_ptr<Pretokenizer>> Pretokenizer::ByName(absl::string_view name) {
  std::vector<const char*> expressions;
  if (name == "gpt-2") {
    expressions = {kGpt2};
  } else if (name == "smollm") {
    expressions = {kDigits, kGpt2};
  } else if (name == "llama-bpe") {
    expressions = {kLlamaBpe};
  } else if (name == "qwen2") {
    expressions = {kQwen2};
  } else {
    return absl::UnimplementedError(
        absl::StrCat("pre-tokenizer \"", name, "\" is not served; gpt-2, smollm, llama-bpe and qwen2 are"));
  }
  std::unique_ptr<Pretokenizer> pretokenizer(new Pretokenizer);
  for (const char* expression : expressions) pretokenizer->patterns_.push_back(std::make_unique<Pattern>(expression));
  return pretokenizer;
}

absl::string_view Pretokenizer::NameOfRegex(absl::string_view regex) {
  if (regex == kGpt2) return "gpt-2";
  if (regex == kLlamaBpe) return "llama-bpe";
  if (regex == kQwen2) return "qwen2";
  return "";
}

absl::StatusOr<std::vector<absl::string_view>> Pretokenizer::Split(absl::string_view text) const {
  std::vector<absl::string_view> pieces = {text};
  for (const std::unique_ptr<Pattern>& pattern : patterns_) {
    std::vector<absl::string_view> cut;
    for (const absl::string_view piece : pieces) {
      const absl::Status status = pattern->Split(piece, &cut);
      if (!status.ok()) return status;
    }
    pieces = std::move(cut);
  }
  return pieces;
}

}  // namespace fermata
