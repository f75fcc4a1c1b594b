#include "tests/fakes/fake_token_decoder.h"

namespace fermata {

FakeTokenDecoder::FakeTokenDecoder() {
  for (char c = 'a'; c <= 'z'; ++c) bytes_.push_back(std::string(1, c));  // 0 to 25
  // Characters of two, three and four bytes, whole and in parts; what is no UTF-8; more than one letter; nothing.
  for (const char* text : {"\xC3\xA9", "\xC3", "\xA9", "\xE2\x82\xAC", "\xE2", "\x82\xAC", "\xF0\x9F", "\x98\x80",
                           "\xF0\x9F\x98\x80", "\xFF", "\xC0", "ab", "abc", "ba", " ", "\n", ""}) {
    bytes_.push_back(text);
  }
  while (bytes_.size() < kVocabularySize - 1) bytes_.push_back(bytes_[bytes_.size() % 26]);
  bytes_.push_back("");  // kEnd
}

}  // namespace fermata
