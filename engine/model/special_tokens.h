// Finds the spellings of special tokens in text.

#ifndef FERMATA_ENGINE_MODEL_SPECIAL_TOKENS_H_
#define FERMATA_ENGINE_MODEL_SPECIAL_TOKENS_H_

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/core/ids.h"

namespace fermata {

// Of several spellings that begin at the same place the longest counts. Immutable once filled.
class SpecialTokens {
 public:
  struct Match {
    size_t position;
    size_t size;
    TokenId token;
  };

  // `control` tokens are found only where the caller asks for them; others (added words) always. Ignores an empty
  // spelling.
  void Add(absl::string_view spelling, TokenId token, bool control);

  // The first match in `text` at or after `from`; nothing if there is none.
  std::optional<Match> Find(absl::string_view text, size_t from, bool with_control) const;

 private:
  struct Entry {
    std::string spelling;
    TokenId token;
    bool control;
  };

  std::array<std::vector<Entry>, 256> by_first_byte_;  // each longest first
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_SPECIAL_TOKENS_H_
