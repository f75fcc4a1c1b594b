// Finds the first of several strings in a stream of bytes.

#ifndef FERMATA_ENGINE_CORE_STOP_MATCHER_H_
#define FERMATA_ENGINE_CORE_STOP_MATCHER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"

namespace fermata {

// Knuth-Morris-Pratt, once for each pattern: O(patterns) amortised for each byte, whatever the bytes are. Patterns are
// few (SamplingParams::kMaxStopStrings), so one automaton for all of them would cost more memory than it saves time.
class StopMatcher {
 public:
  // REQUIRES: no pattern is empty or longer than SamplingParams::kMaxStopStringBytes.
  explicit StopMatcher(absl::Span<const std::string> patterns);

  bool empty() const { return patterns_.empty(); }

  // Takes the next byte. Returns the length of the longest pattern that ends with it; 0 if none does.
  int Advance(char byte);

  // How many of the last bytes may be the beginning of a match to come: the longest proper beginning of a pattern that
  // the bytes so far end with.
  int held_count() const { return held_count_; }

 private:
  struct Pattern {
    std::string text;
    // borders[n]: the longest proper beginning of text[0, n) that is also its end.
    std::vector<uint16_t> borders;
    int matched = 0;
  };

  std::vector<Pattern> patterns_;
  int held_count_ = 0;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_STOP_MATCHER_H_
