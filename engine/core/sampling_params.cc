#include "engine/core/sampling_params.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace fermata {
namespace {

constexpr float kMaxPenalty = 2.0f;  // frequency and presence, either sign
constexpr float kMaxRepetitionPenalty = 10.0f;
constexpr float kMaxBias = 100.0f;  // either sign

absl::Status OutOfRange(absl::string_view field, absl::string_view value, absl::string_view range) {
  return absl::InvalidArgumentError(absl::StrCat("sampling.", field, " is ", value, "; allowed is ", range));
}

// Written so that NaN, for which every comparison is false, is never in range.
absl::Status CheckFloat(absl::string_view field, float value, float least, float most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return OutOfRange(field, absl::StrCat(value), absl::StrCat("[", least, ", ", most, "]"));
}

absl::Status CheckPositiveFloat(absl::string_view field, float value, float most) {
  if (value > 0.0f && value <= most) return absl::OkStatus();
  return OutOfRange(field, absl::StrCat(value), absl::StrCat("(0, ", most, "]"));
}

absl::Status CheckInt(absl::string_view field, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return OutOfRange(field, absl::StrCat(value), absl::StrCat("[", least, ", ", most, "]"));
}

absl::Status CheckCount(absl::string_view field, size_t count, int most) {
  if (count <= static_cast<size_t>(most)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("sampling.", field, " has ", count, " entries; allowed are at most ", most));
}

absl::Status CheckNumbers(const SamplingParams& params) {
  const absl::Status results[] = {
      CheckInt("max_tokens", params.max_tokens, 1, std::numeric_limits<int32_t>::max()),
      CheckFloat("temperature", params.temperature, 0.0f, SamplingParams::kMaxTemperature),
      CheckInt("top_k", params.top_k, 0, std::numeric_limits<int32_t>::max()),
      CheckPositiveFloat("top_p", params.top_p, 1.0f),
      CheckFloat("min_p", params.min_p, 0.0f, 1.0f),
      CheckPositiveFloat("repetition_penalty", params.repetition_penalty, kMaxRepetitionPenalty),
      CheckFloat("frequency_penalty", params.frequency_penalty, -kMaxPenalty, kMaxPenalty),
      CheckFloat("presence_penalty", params.presence_penalty, -kMaxPenalty, kMaxPenalty),
      CheckInt("logprobs", params.logprobs, -1, SamplingParams::kMaxLogprobs),
      CheckCount("stop", params.stop.size(), SamplingParams::kMaxStopStrings),
      CheckCount("stop_token_ids", params.stop_token_ids.size(), SamplingParams::kMaxStopTokenIds),
      CheckCount("logit_bias", params.logit_bias.size(), SamplingParams::kMaxLogitBias),
  };
  for (const absl::Status& result : results) {
    if (!result.ok()) return result;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SamplingParams::Validate(int32_t vocabulary_size) const {
  absl::Status result = CheckNumbers(*this);
  if (!result.ok()) return result;
  for (const std::string& text : stop) {
    if (text.empty() || text.size() > static_cast<size_t>(kMaxStopStringBytes)) {
      return absl::InvalidArgumentError(absl::StrCat("sampling.stop has a string of ", text.size(),
                                                     " bytes; allowed are 1 to ", kMaxStopStringBytes));
    }
  }
  for (const TokenId token : stop_token_ids) {
    result = CheckInt("stop_token_ids", Value(token), 0, int64_t{vocabulary_size} - 1);
    if (!result.ok()) return result;
  }
  for (const auto& [token, bias] : logit_bias) {
    result = CheckInt("logit_bias (a token id)", Value(token), 0, int64_t{vocabulary_size} - 1);
    if (!result.ok()) return result;
    result = CheckFloat("logit_bias (a value)", bias, -kMaxBias, kMaxBias);
    if (!result.ok()) return result;
  }
  return absl::OkStatus();
}

}  // namespace fermata
