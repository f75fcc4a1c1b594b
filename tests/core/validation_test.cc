// Goal: parameters and options out of range are refused with INVALID_ARGUMENT that names the field; those on the border
// of the range are not. Method: one change at a time to a valid value.

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "engine/core/engine_options.h"
#include "engine/core/sampling_params.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fermata {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kVocabulary = 100;

void ExpectRefused(const absl::Status& status, const std::string& name) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
  EXPECT_THAT(std::string(status.message()), HasSubstr(name));
}

struct SamplingCase {
  std::string field;
  std::function<void(SamplingParams&)> change;
};

TEST(SamplingParamsTest, TheDefaultsAreValid) { EXPECT_EQ(SamplingParams().Validate(kVocabulary), absl::OkStatus()); }

TEST(SamplingParamsTest, EveryFieldOutOfRangeIsNamed) {
  const float nan = std::nanf("");
  const float infinity = std::numeric_limits<float>::infinity();
  const SamplingCase cases[] = {
      {"max_tokens", [](SamplingParams& p) { p.max_tokens = 0; }},
      {"max_tokens", [](SamplingParams& p) { p.max_tokens = -1; }},
      {"temperature", [](SamplingParams& p) { p.temperature = -0.1f; }},
      {"temperature", [](SamplingParams& p) { p.temperature = 10.1f; }},
      {"temperature", [=](SamplingParams& p) { p.temperature = nan; }},
      {"temperature", [=](SamplingParams& p) { p.temperature = infinity; }},
      {"top_k", [](SamplingParams& p) { p.top_k = -1; }},
      {"top_p", [](SamplingParams& p) { p.top_p = 0.0f; }},
      {"top_p", [](SamplingParams& p) { p.top_p = 1.1f; }},
      {"top_p", [=](SamplingParams& p) { p.top_p = nan; }},
      {"min_p", [](SamplingParams& p) { p.min_p = -0.1f; }},
      {"min_p", [=](SamplingParams& p) { p.min_p = nan; }},
      {"repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = 0.0f; }},
      {"repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = 11.0f; }},
      {"frequency_penalty", [](SamplingParams& p) { p.frequency_penalty = -2.1f; }},
      {"presence_penalty", [](SamplingParams& p) { p.presence_penalty = 2.1f; }},
      {"presence_penalty", [=](SamplingParams& p) { p.presence_penalty = nan; }},
      {"logprobs", [](SamplingParams& p) { p.logprobs = -2; }},
      {"logprobs", [](SamplingParams& p) { p.logprobs = 21; }},
      {"stop", [](SamplingParams& p) { p.stop = {""}; }},
      {"stop", [](SamplingParams& p) { p.stop = {std::string(257, 'a')}; }},
      {"stop", [](SamplingParams& p) { p.stop.assign(17, "a"); }},
      {"stop_token_ids", [](SamplingParams& p) { p.stop_token_ids = {TokenId{-1}}; }},
      {"stop_token_ids", [](SamplingParams& p) { p.stop_token_ids = {TokenId{kVocabulary}}; }},
      {"stop_token_ids", [](SamplingParams& p) { p.stop_token_ids.assign(65, TokenId{1}); }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{TokenId{kVocabulary}, 0.0f}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{TokenId{1}, 100.5f}};
       }},
      {"logit_bias",
       [=](SamplingParams& p) {
         p.logit_bias = {{TokenId{1}, nan}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias.assign(301, {TokenId{1}, 0.0f});
       }},
  };
  for (const SamplingCase& c : cases) {
    SamplingParams params;
    c.change(params);
    ExpectRefused(params.Validate(kVocabulary), "sampling." + c.field);
  }
}

TEST(SamplingParamsTest, TheBordersOfTheRangesAreValid) {
  SamplingParams params;
  params.max_tokens = 1;
  params.temperature = SamplingParams::kMaxTemperature;
  params.top_p = 1.0f;
  params.min_p = 1.0f;
  params.repetition_penalty = 10.0f;
  params.frequency_penalty = -2.0f;
  params.presence_penalty = 2.0f;
  params.logprobs = SamplingParams::kMaxLogprobs;
  params.stop.assign(SamplingParams::kMaxStopStrings, std::string(SamplingParams::kMaxStopStringBytes, 'a'));
  params.stop_token_ids.assign(SamplingParams::kMaxStopTokenIds, TokenId{kVocabulary - 1});
  params.logit_bias.assign(SamplingParams::kMaxLogitBias, {TokenId{0}, -100.0f});
  EXPECT_EQ(params.Validate(kVocabulary), absl::OkStatus());
}

struct OptionsCase {
  std::string flag;
  std::function<void(EngineOptions&)> change;
};

TEST(EngineOptionsTest, TheDefaultsAreValid) { EXPECT_EQ(EngineOptions().Validate(), absl::OkStatus()); }

TEST(EngineOptionsTest, EveryFlagOutOfRangeIsNamed) {
  const OptionsCase cases[] = {
      {"--max_running", [](EngineOptions& o) { o.max_running = 0; }},
      {"--max_running", [](EngineOptions& o) { o.max_running = 65537; }},
      {"--max_queued", [](EngineOptions& o) { o.max_queued = 0; }},
      {"--max_live", [](EngineOptions& o) { o.max_live = -5; }},
      {"--context_tokens", [](EngineOptions& o) { o.context_tokens = 1; }},
      {"--max_finished", [](EngineOptions& o) { o.max_finished = -1; }},
      {"--block_tokens", [](EngineOptions& o) { o.block_tokens = 0; }},
      {"--block_tokens", [](EngineOptions& o) { o.block_tokens = 4097; }},
      {"--kv_bytes", [](EngineOptions& o) { o.block_count = 0; }},
      {"--step_tokens", [](EngineOptions& o) { o.step_tokens = 0; }},
      {"first_revision", [](EngineOptions& o) { o.first_revision = -1; }},
      {"--disconnect_lease", [](EngineOptions& o) { o.disconnect_lease = -absl::Seconds(1); }},
      {"--finished_age", [](EngineOptions& o) { o.finished_age = -absl::InfiniteDuration(); }},
  };
  for (const OptionsCase& c : cases) {
    EngineOptions options;
    c.change(options);
    ExpectRefused(options.Validate(), c.flag);
  }
}

}  // namespace
}  // namespace fermata
