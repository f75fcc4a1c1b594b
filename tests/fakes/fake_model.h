// The arithmetic of a model that is none: the next token is a hash of all tokens before it. And what a generation must
// come to, worked out without any engine.

#ifndef FERMATA_TESTS_FAKES_FAKE_MODEL_H_
#define FERMATA_TESTS_FAKES_FAKE_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "engine/core/generation_spec.h"
#include "engine/core/generation_state.h"
#include "engine/core/ids.h"
#include "engine/core/token_decoder.h"

namespace fermata {

// The running hash over a context, token by token.
class FakeContextHash {
 public:
  void Add(TokenId token, int64_t position);

  // What comes after it, below `vocabulary_size`.
  TokenId Next(uint64_t seed, int32_t vocabulary_size) const;

 private:
  uint64_t hash_ = 0x9E3779B97F4A7C15u;
};

struct FakeOutput {
  std::vector<TokenId> tokens;
  std::string text;
  FinishReason reason = FinishReason::kNone;
};

// The output of an undisturbed generation.
FakeOutput ExpectedOutput(const GenerationSpec& spec, const TokenDecoder& decoder);

// The text of the first `tokens` of an output that was cut short, by an abort for instance.
std::string TextOfPrefix(absl::Span<const TokenId> tokens, const TokenDecoder& decoder);

}  // namespace fermata

#endif  // FERMATA_TESTS_FAKES_FAKE_MODEL_H_
