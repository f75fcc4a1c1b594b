#include "engine/core/utf8_stream.h"

namespace fermata {
namespace {

constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
constexpr uint8_t kLeastContinuation = 0x80;
constexpr uint8_t kMostContinuation = 0xBF;

}  // namespace

void Utf8Stream::Append(absl::string_view bytes, std::string* text) {
  for (const char c : bytes) {
    const uint8_t byte = static_cast<uint8_t>(c);
    // A byte that cannot go on ends the character begun, and is then looked at afresh: it may begin the next one.
    if (missing_count_ > 0 && (byte < least_ || byte > most_)) Replace(text);
    if (missing_count_ == 0) {
      Begin(byte, text);
      continue;
    }
    held_[held_count_++] = c;
    least_ = kLeastContinuation;
    most_ = kMostContinuation;
    if (--missing_count_ == 0) {
      text->append(held_, held_count_);
      held_count_ = 0;
    }
  }
}

void Utf8Stream::Begin(uint8_t byte, std::string* text) {
  if (byte < 0x80) {
    text->push_back(static_cast<char>(byte));
    return;
  }
  // C0 and C1 could only begin overlong forms, F5 and above only values that are too large.
  if (byte >= 0xC2 && byte <= 0xDF) {
    missing_count_ = 1;
  } else if (byte >= 0xE0 && byte <= 0xEF) {
    missing_count_ = 2;
  } else if (byte >= 0xF0 && byte <= 0xF4) {
    missing_count_ = 3;
  } else {
    text->append(kReplacement.data(), kReplacement.size());
    return;
  }
  held_[0] = static_cast<char>(byte);
  held_count_ = 1;
  // The second byte is where overlong forms, surrogates and values that are too large show.
  least_ = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : kLeastContinuation;
  most_ = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : kMostContinuation;
}

void Utf8Stream::Replace(std::string* text) {
  text->append(kReplacement.data(), kReplacement.size());
  held_count_ = 0;
  missing_count_ = 0;
}

void Utf8Stream::Flush(std::string* text) {
  if (missing_count_ > 0) Replace(text);
}

}  // namespace fermata
