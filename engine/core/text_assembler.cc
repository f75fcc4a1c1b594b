#include "engine/core/text_assembler.h"

namespace fermata {

bool TextAssembler::Append(absl::string_view bytes, std::string* text) {
  // The common case: nothing to look for, nothing to hold but half a character.
  if (matcher_.empty()) {
    utf8_.Append(bytes, text);
    return false;
  }
  for (const char byte : bytes) {
    held_.push_back(byte);
    const int match = matcher_.Advance(byte);
    if (match > 0) {
      // All of the match is in held_, for it was held back as the beginning of one byte by byte.
      held_.resize(held_.size() - match);
      Flush(text);
      return true;
    }
  }
  const size_t released = held_.size() - matcher_.held_count();
  utf8_.Append(absl::string_view(held_).substr(0, released), text);
  held_.erase(0, released);
  return false;
}

void TextAssembler::Flush(std::string* text) {
  utf8_.Append(held_, text);
  utf8_.Flush(text);
  held_.clear();
}

}  // namespace fermata
