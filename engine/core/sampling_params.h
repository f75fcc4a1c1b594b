// How output tokens are chosen, and when a generation stops.

#ifndef FERMATA_ENGINE_CORE_SAMPLING_PARAMS_H_
#define FERMATA_ENGINE_CORE_SAMPLING_PARAMS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/core/ids.h"

namespace fermata {

// Values as design.md and generation.proto define them. The defaults here are those of an empty SamplingParams message.
struct SamplingParams {
  static constexpr int32_t kDefaultMaxTokens = 256;
  static constexpr float kMaxTemperature = 10.0f;
  static constexpr int kMaxStopStrings = 16;
  static constexpr int kMaxStopStringBytes = 256;
  static constexpr int kMaxStopTokenIds = 64;
  static constexpr int kMaxLogitBias = 300;
  static constexpr int kMaxLogprobs = 20;

  int32_t max_tokens = kDefaultMaxTokens;             // output tokens, at least 1
  float temperature = 1.0f;                           // 0 is greedy; at most kMaxTemperature
  int32_t top_k = 0;                                  // 0: no limit
  float top_p = 1.0f;                                 // (0, 1]
  float min_p = 0.0f;                                 // [0, 1], relative to the most likely token
  float repetition_penalty = 1.0f;                    // (0, 10], over prompt and output
  float frequency_penalty = 0.0f;                     // [-2, 2], over output only
  float presence_penalty = 0.0f;                      // [-2, 2], over output only
  uint64_t seed = 0;                                  // always set: the edge draws one where the client gave none
  bool ignore_eos = false;                            // end-of-generation tokens do not stop
  std::vector<std::string> stop;                      // stop strings; each is cut from the text
  std::vector<TokenId> stop_token_ids;                // stop tokens; counted as output, not in the text
  std::vector<std::pair<TokenId, float>> logit_bias;  // added to the raw logits, [-100, 100]
  int32_t logprobs = -1;                              // -1: none; 0: of the sampled token; n: and of the n most likely

  // INVALID_ARGUMENT naming the field, its value and the allowed range. NaN is never in range. Token ids must be below
  // `vocabulary_size`.
  absl::Status Validate(int32_t vocabulary_size) const;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_SAMPLING_PARAMS_H_
