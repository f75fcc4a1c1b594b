#include "engine/model/special_tokens.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/match.h"

namespace fermata {

void SpecialTokens::Add(absl::string_view spelling, TokenId token, bool control) {
  if (spelling.empty()) return;
  std::vector<Entry>& entries = by_first_byte_[static_cast<uint8_t>(spelling[0])];
  const auto shorter = std::find_if(entries.begin(), entries.end(),
                                    [&](const Entry& entry) { return entry.spelling.size() < spelling.size(); });
  entries.insert(shorter, {std::string(spelling), token, control});
}

std::optional<SpecialTokens::Match> SpecialTokens::Find(absl::string_view text, size_t from, bool with_control) const {
  for (size_t i = from; i < text.size(); ++i) {
    for (const Entry& entry : by_first_byte_[static_cast<uint8_t>(text[i])]) {
      if (entry.control && !with_control) continue;
      if (absl::StartsWith(text.substr(i), entry.spelling)) return Match{i, entry.spelling.size(), entry.token};
    }
  }
  return std::nullopt;
}

}  // namespace fermata
