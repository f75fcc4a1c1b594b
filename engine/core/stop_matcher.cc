#include "engine/core/stop_matcher.h"

#include <algorithm>

#include "engine/core/check.h"

namespace fermata {
namespace {

// The failure function, with one entry for each length from 0 to the whole.
std::vector<uint16_t> Borders(const std::string& text) {
  std::vector<uint16_t> borders(text.size() + 1, 0);
  int border = 0;
  for (size_t end = 1; end < text.size(); ++end) {
    while (border > 0 && text[border] != text[end]) border = borders[border];
    if (text[border] == text[end]) ++border;
    borders[end + 1] = static_cast<uint16_t>(border);
  }
  return borders;
}

}  // namespace

StopMatcher::StopMatcher(absl::Span<const std::string> patterns) {
  patterns_.reserve(patterns.size());
  for (const std::string& text : patterns) {
    FERMATA_CHECK(!text.empty() && text.size() <= UINT16_MAX);
    patterns_.push_back({text, Borders(text), /*matched=*/0});
  }
}

int StopMatcher::Advance(char byte) {
  int longest_match = 0;
  held_count_ = 0;
  for (Pattern& pattern : patterns_) {
    int& matched = pattern.matched;
    while (matched > 0 && pattern.text[matched] != byte) matched = pattern.borders[matched];
    if (pattern.text[matched] == byte) ++matched;
    if (matched == static_cast<int>(pattern.text.size())) {
      // Goes on as if there had been no match: what it ends with may begin another one.
      longest_match = std::max(longest_match, matched);
      matched = pattern.borders[matched];
    }
    held_count_ = std::max(held_count_, matched);
  }
  return longest_match;
}

}  // namespace fermata
