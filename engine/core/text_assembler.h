// Makes the output text of one generation from the bytes of its tokens, and finds its stop strings.

#ifndef FERMATA_ENGINE_CORE_TEXT_ASSEMBLER_H_
#define FERMATA_ENGINE_CORE_TEXT_ASSEMBLER_H_

#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/core/stop_matcher.h"
#include "engine/core/utf8_stream.h"

namespace fermata {

// Text lags behind bytes while they may be the beginning of a stop string or of a UTF-8 character. Stop strings are
// matched on bytes, wherever tokens were cut. The first match to end wins; of several that end with the same byte the
// longest, so nothing of any of them is left in the text. What is released never depends on the cuts, only when.
class TextAssembler {
 public:
  // REQUIRES: as StopMatcher.
  explicit TextAssembler(absl::Span<const std::string> stop_strings) : matcher_(stop_strings) {}

  // Takes the bytes of the next token and appends to *text what they release. True if they complete a stop string: then
  // everything before it has been released, it and what follows it are dropped, and the output has ended.
  bool Append(absl::string_view bytes, std::string* text);

  // The output has ended: releases what is held, half a character as U+FFFD. Nothing may be
  // appended after it.
  void Flush(std::string* text);

 private:
  StopMatcher matcher_;
  std::string held_;  // the last matcher_.held_count() bytes
  Utf8Stream utf8_;   // takes what has left held_
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_TEXT_ASSEMBLER_H_
