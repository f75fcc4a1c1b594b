#include "engine/model/byte_level.h"

#include <array>

namespace fermata {
namespace {

constexpr int kFirstSubstitute = 0x100;
constexpr int kCodePointEnd = kFirstSubstitute + 68;  // 68 bytes are not printable

bool IsPrintable(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

struct Alphabet {
  std::array<int, 256> code_point_of_byte;
  std::array<int, kCodePointEnd> byte_of_code_point;  // -1: not of the alphabet

  Alphabet() {
    byte_of_code_point.fill(-1);
    int substitute = kFirstSubstitute;
    for (int byte = 0; byte < 256; ++byte) {
      const int code_point = IsPrintable(byte) ? byte : substitute++;
      code_point_of_byte[byte] = code_point;
      byte_of_code_point[code_point] = byte;
    }
  }
};

const Alphabet& GetAlphabet() {
  static const Alphabet* const alphabet = new Alphabet;
  return *alphabet;
}

}  // namespace

std::string EncodeByteLevel(uint8_t byte) {
  const int code_point = GetAlphabet().code_point_of_byte[byte];
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xC0 | (code_point >> 6)), static_cast<char>(0x80 | (code_point & 0x3F))};
}

std::optional<std::string> DecodeByteLevel(absl::string_view text) {
  const Alphabet& alphabet = GetAlphabet();
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    int code_point = static_cast<uint8_t>(text[i]);
    // The alphabet needs two bytes of UTF-8 at most.
    if (code_point >= 0x80) {
      if (code_point < 0xC2 || code_point > 0xDF || i + 1 == text.size()) return std::nullopt;
      const int next = static_cast<uint8_t>(text[++i]);
      if ((next & 0xC0) != 0x80) return std::nullopt;
      code_point = ((code_point & 0x1F) << 6) | (next & 0x3F);
    }
    if (code_point >= kCodePointEnd || alphabet.byte_of_code_point[code_point] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(alphabet.byte_of_code_point[code_point]));
  }
  return bytes;
}

}  // namespace fermata
