// Cuts text into the pieces that byte-pair merges never cross.

#ifndef FERMATA_ENGINE_MODEL_PRETOKENIZER_H_
#define FERMATA_ENGINE_MODEL_PRETOKENIZER_H_

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace fermata {

// A chain of regular expressions (PCRE2): each cuts the pieces of the one before into its matches and what lies between
// them. Immutable; all methods may be called from any thread.
class Pretokenizer {
 public:
  // By the name that model files give: "gpt-2", "smollm", "llama-bpe", "qwen2". UNIMPLEMENTED for others.
  static absl::StatusOr<std::unique_ptr<Pretokenizer>> ByName(absl::string_view name);

  // The name of the one whose expression is `regex`, as a tokenizer.json spells it; empty if none is.
  static absl::string_view NameOfRegex(absl::string_view regex);

  ~Pretokenizer();
  Pretokenizer(const Pretokenizer&) = delete;
  Pretokenizer& operator=(const Pretokenizer&) = delete;

  // The pieces, in order; put together they are `text`, in whose memory they lie. REQUIRES: valid UTF-8.
  // RESOURCE_EXHAUSTED if the regular expressions gave up.
  absl::StatusOr<std::vector<absl::string_view>> Split(absl::string_view text) const;

 private:
  class Pattern;

  Pretokenizer();

  std::vector<std::unique_ptr<Pattern>> patterns_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_PRETOKENIZER_H_
