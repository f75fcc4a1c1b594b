// The arithmetic of a model that is none: the next token is a hash of all tokens before it. And what a generation must
// come to, worked out without any engine.

#ifndef FERMATA_TESTS_FAKES_FAKE_MODEL_H_
#define FERMATA_TESTS_FAKES_FAKE_MODEL_H_

#include <cstdint>
#include <limits>
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

// More that a paused generation was continued with.
struct FakeTurn {
  int64_t after_output = 0;       // how many output tokens there were
  std::vector<TokenId> appended;  // to the context; may be none
  int32_t max_tokens = 0;         // the total from then on
};

// The output of an undisturbed generation that is given more at `turns`, in order. With hold_on_stop it goes on after a
// stop if there is a turn for it. Of an output that was cut short, by an abort for instance, the first `limit` tokens;
// the reason is then kNone, unless the last one happens to be an end.
FakeOutput ExpectedOutput(const GenerationSpec& spec, const TokenDecoder& decoder,
                          absl::Span<const FakeTurn> turns = {}, int64_t limit = std::numeric_limits<int64_t>::max());

}  // namespace fermata

#endif  // FERMATA_TESTS_FAKES_FAKE_MODEL_H_
