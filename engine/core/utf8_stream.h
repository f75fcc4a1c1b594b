// Turns a stream of bytes, cut anywhere, into valid UTF-8.

#ifndef FERMATA_ENGINE_CORE_UTF8_STREAM_H_
#define FERMATA_ENGINE_CORE_UTF8_STREAM_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace fermata {

// Holds back the beginning of a character until its rest is there; at most three bytes. What is not UTF-8 becomes
// U+FFFD, one for each longest piece that could have begun a character, as the Unicode standard recommends; so the text
// does not depend on where the bytes were cut. Surrogates, overlong forms and values above U+10FFFF are not UTF-8.
class Utf8Stream {
 public:
  // Appends to *text every character that `bytes` completes. O(1) for each byte.
  void Append(absl::string_view bytes, std::string* text);

  // The stream has ended: an incomplete character becomes U+FFFD. Then as new.
  void Flush(std::string* text);

 private:
  // Takes the first byte of a character; appends what needs no second one.
  void Begin(uint8_t byte, std::string* text);

  // Gives up the character begun.
  void Replace(std::string* text);

  char held_[4] = {};
  uint8_t held_count_ = 0;
  uint8_t missing_count_ = 0;  // continuation bytes still to come; 0: between two characters
  uint8_t least_ = 0x80;       // range of the next continuation byte
  uint8_t most_ = 0xBF;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_UTF8_STREAM_H_
