#include "tests/fakes/fake_model.h"

#include <algorithm>

#include "absl/algorithm/container.h"
#include "absl/strings/string_view.h"
#include "engine/core/utf8_stream.h"

namespace fermata {
namespace {

uint64_t Mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9u;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

std::string ToText(absl::string_view bytes) {
  std::string text;
  Utf8Stream stream;
  stream.Append(bytes, &text);
  stream.Flush(&text);
  return text;
}

// Cuts `bytes` before the stop string that ends first, the longest of several; false if there is none.
bool CutAtStop(const std::vector<std::string>& stops, std::string* bytes) {
  for (size_t end = 1; end <= bytes->size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && bytes->compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest == 0) continue;
    bytes->resize(end - longest);
    return true;
  }
  return false;
}

}  // namespace

void FakeContextHash::Add(TokenId token, int64_t position) {
  hash_ = Mix(hash_ + static_cast<uint64_t>(Value(token)) * 0x9E3779B97F4A7C15u + static_cast<uint64_t>(position));
}

TokenId FakeContextHash::Next(uint64_t seed, int32_t vocabulary_size) const {
  return TokenId{static_cast<int32_t>(Mix(hash_ ^ seed) % static_cast<uint64_t>(vocabulary_size))};
}

FakeOutput ExpectedOutput(const GenerationSpec& spec, const TokenDecoder& decoder, absl::Span<const FakeTurn> turns,
                          int64_t limit) {
  FakeContextHash hash;
  int64_t position = 0;
  for (const TokenId token : spec.prompt) hash.Add(token, position++);
  FakeOutput output;
  std::string bytes;  // of the text since the last stop
  int64_t max_tokens = spec.sampling.max_tokens;
  const auto count = [&] { return static_cast<int64_t>(output.tokens.size()); };
  const auto take_turns = [&] {
    for (; !turns.empty() && turns.front().after_output == count(); turns.remove_prefix(1)) {
      for (const TokenId token : turns.front().appended) hash.Add(token, position++);
      max_tokens = turns.front().max_tokens;
    }
  };
  take_turns();
  while (output.reason == FinishReason::kNone && count() < limit) {
    const TokenId token = hash.Next(spec.sampling.seed, decoder.vocabulary_size());
    hash.Add(token, position++);
    output.tokens.push_back(token);
    const bool ends = (!spec.sampling.ignore_eos && decoder.IsEndOfGeneration(token)) ||
                      absl::c_linear_search(spec.sampling.stop_token_ids, token);
    if (!ends) bytes.append(decoder.Bytes(token).data(), decoder.Bytes(token).size());
    if (ends || CutAtStop(spec.sampling.stop, &bytes)) {
      output.reason = FinishReason::kStop;
    } else if (count() == max_tokens) {
      output.reason = FinishReason::kLength;
    }
    if (output.reason != FinishReason::kNone) {
      output.text += ToText(bytes);
      bytes.clear();
    }
    if (turns.empty() || turns.front().after_output != count()) continue;
    output.reason = FinishReason::kNone;
    take_turns();
  }
  output.text += ToText(bytes);
  return output;
}

}  // namespace fermata
