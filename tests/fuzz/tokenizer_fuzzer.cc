// Goal: any text can be tokenized and comes back as it was; whatever tokens are sampled, the streamed text is valid
// UTF-8 at every token, never takes a word back, ends where a stop string does, and is the whole text. Method: the
// first byte chooses the pre-tokenizer and how special tokens are read, the second the stop strings' length; then come
// the stop strings, and the rest is both a text and, byte by byte, a list of tokens.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/core/text_assembler.h"
#include "engine/core/utf8_stream.h"
#include "engine/model/chat_template.h"
#include "glog/logging.h"
#include "tests/fakes/tiny_tokenizer.h"

namespace fermata {
namespace {

constexpr const char* kPretokenizers[] = {"gpt-2", "smollm", "llama-bpe"};
constexpr const char* kTemplates[] = {"<|im_start|><|im_end|>", "<|start_header_id|><|eot_id|>"};

// By the table of well-formed sequences in the Unicode standard; no code shared with what is tested.
bool IsUtf8(absl::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const uint32_t first = static_cast<uint8_t>(text[i]);
    const size_t length = first < 0x80 ? 1 : first >> 5 == 6 ? 2 : first >> 4 == 14 ? 3 : first >> 3 == 30 ? 4 : 0;
    if (length == 0 || i + length > text.size()) return false;
    uint32_t scalar = length == 1 ? first : first & (0x7F >> length);
    for (size_t n = 1; n < length; ++n) {
      const uint32_t next = static_cast<uint8_t>(text[i + n]);
      if (next >> 6 != 2) return false;
      scalar = scalar << 6 | (next & 0x3F);
    }
    constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
    if (scalar < kLeast[length] || scalar > 0x10FFFF || (scalar >= 0xD800 && scalar <= 0xDFFF)) return false;
    i += length;
  }
  return true;
}

std::string Repair(absl::string_view bytes) {
  Utf8Stream stream;
  std::string text;
  stream.Append(bytes, &text);
  stream.Flush(&text);
  CHECK(IsUtf8(text));
  CHECK(!IsUtf8(bytes) || text == bytes);
  return text;
}

// Text to tokens and back. Returns the tokens.
std::vector<TokenId> RoundTrip(const BpeTokenizer& tokenizer, const std::string& text, bool parse_special) {
  absl::StatusOr<std::vector<TokenId>> tokens = tokenizer.Encode(text, parse_special, /*add_bos=*/true);
  CHECK_EQ(tokens.ok(), IsUtf8(text)) << tokens.status();
  if (!tokens.ok()) return {};
  const absl::StatusOr<std::string> decoded = tokenizer.Decode(*tokens);
  CHECK(decoded.ok());
  CHECK_EQ(*decoded, text);
  return *std::move(tokens);
}

// What must come of `bytes`: all before the stop string that ends first, the longest of those.
std::string Expected(const std::vector<std::string>& stops, const std::string& bytes, bool* stopped) {
  for (size_t end = 1; end <= bytes.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      const bool ends = stop.size() <= end && bytes.compare(end - stop.size(), stop.size(), stop) == 0;
      if (ends) longest = std::max(longest, stop.size());
    }
    *stopped = longest > 0;
    if (*stopped) return Repair(bytes.substr(0, end - longest));
  }
  return Repair(bytes);
}

void Stream(const BpeTokenizer& tokenizer, const std::vector<TokenId>& tokens, const std::vector<std::string>& stops) {
  TextAssembler assembler(stops);
  std::string bytes;
  std::string text;
  bool stopped = false;
  for (const TokenId token : tokens) {
    bytes += std::string(tokenizer.Bytes(token));
    const size_t known = text.size();
    stopped = assembler.Append(tokenizer.Bytes(token), &text);
    // Each piece by itself: none ends within a character.
    CHECK(IsUtf8(absl::string_view(text).substr(known)));
    if (stopped) break;
  }
  const std::string before = text;
  assembler.Flush(&text);
  CHECK(!stopped || text == before);
  bool expect_stop = false;
  CHECK_EQ(text, Expected(stops, bytes, &expect_stop));
  CHECK_EQ(stopped, expect_stop);
}

// A message is plain text: only the template's own control tokens are in its tokens.
void Chat(const BpeTokenizer& tokenizer, const char* jinja, const std::string& content) {
  const absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template = RecogniseChatTemplate(jinja);
  CHECK(chat_template.ok());
  const auto count_controls = [&](const std::string& said) -> int64_t {
    const absl::StatusOr<std::vector<TokenId>> tokens = (*chat_template)->Format(tokenizer, {{"user", said}});
    CHECK_EQ(tokens.ok(), IsUtf8(said)) << tokens.status();
    if (!tokens.ok()) return -1;
    return std::count_if(tokens->begin(), tokens->end(), [&](TokenId token) { return tokenizer.Bytes(token).empty(); });
  };
  if (IsUtf8(content)) CHECK_EQ(count_controls(content), count_controls("plain"));
  const absl::StatusOr<AppendedTurns> turns = (*chat_template)->FormatTurns(tokenizer, {{"tool", content}});
  CHECK_EQ(turns.ok(), IsUtf8(content));
  CHECK((*chat_template)->Format(tokenizer, {{content, "role"}}).ok() ==
        (content == "system" || content == "user" || content == "assistant" || content == "tool"));
}

void Run(uint8_t choice, uint8_t stop_size, absl::string_view rest) {
  const BpeTokenizer& tokenizer = TinyTokenizer(kPretokenizers[choice % 3]);
  const bool parse_special = (choice & 0x80) != 0;
  std::vector<std::string> stops;
  for (int count = choice >> 2 & 3; count > 0 && stop_size % 16 > 0 && rest.size() >= stop_size % 16u; --count) {
    stops.emplace_back(rest.substr(0, stop_size % 16));
    rest.remove_prefix(stop_size % 16);
  }
  const std::string text(rest);
  Stream(tokenizer, RoundTrip(tokenizer, Repair(text), parse_special), stops);
  RoundTrip(tokenizer, text, !parse_special);
  std::vector<TokenId> sampled;
  for (size_t i = 0; i < text.size(); ++i) {
    // With 256 bytes as tokens, every second choice reaches the merged and the special ones, too.
    const int32_t offset = (choice & 0x40) != 0 && i % 2 == 1 ? tokenizer.vocabulary_size() - 256 : 0;
    sampled.push_back(TokenId{static_cast<uint8_t>(text[i]) + offset});
  }
  Stream(tokenizer, sampled, stops);
  const absl::StatusOr<std::string> decoded = tokenizer.Decode(sampled);
  CHECK(decoded.ok() && IsUtf8(*decoded));
  Chat(tokenizer, kTemplates[choice >> 4 & 1], text);
  RecogniseChatTemplate(text).status().IgnoreError();
}

}  // namespace
}  // namespace fermata

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  fermata::Run(data[0], data[1], absl::string_view(reinterpret_cast<const char*>(data) + 2, size - 2));
  return 0;
}
