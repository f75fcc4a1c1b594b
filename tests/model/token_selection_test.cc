// Goal: what a back end is told of a token to be selected says the same as the sampler's parameters.
// Method: a plain twin of what a back end does with the changes; the sampler, without bias and penalties, on the logits
// so changed chooses what the sampler chooses with them on the logits as they were.

#include "engine/model/token_selection.h"

#include <random>
#include <vector>

#include "engine/model/random_stream.h"
#include "gtest/gtest.h"

namespace fermata {
namespace {

using kernels::Backend;

constexpr int32_t kVocabulary = 300;

std::vector<float> Changed(std::vector<float> logits, const Backend::Selection& selection,
                           const std::vector<Backend::LogitChange>& changes) {
  for (int32_t i = 0; i < selection.change_count; ++i) {
    const Backend::LogitChange& change = changes[selection.first_change + i];
    float& logit = logits[change.token];
    logit += change.bias;
    logit = logit > 0 ? logit / change.repetition : logit * change.repetition;
    logit -= change.penalty;
  }
  return logits;
}

TEST(TokenSelectionTest, ChangesComeToWhatTheSamplerDoes) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 3);
  std::vector<Backend::Selection> selections;
  std::vector<Backend::LogitChange> changes;
  Sampler sampler;
  for (int round = 0; round < 300; ++round) {
    std::vector<float> logits(kVocabulary);
    for (float& logit : logits) logit = normal(random);
    std::vector<TokenId> tokens(1 + random() % 200);
    for (TokenId& token : tokens) token = TokenId{static_cast<int32_t>(random() % kVocabulary)};
    SamplingParams params;
    params.seed = random();
    params.temperature = round % 3 == 0 ? 0.0f : 0.9f;
    if (round % 2 == 0) params.repetition_penalty = 1.3f;
    if (round % 3 != 0) params.frequency_penalty = 0.7f;
    if (round % 5 == 0) params.presence_penalty = -0.4f;
    if (round % 4 == 0) params.logit_bias = {{TokenId{7}, 4.0f}, {TokenId{2}, -3.0f}, {tokens[0], 2.5f}};
    const TokenRange appended = {static_cast<int32_t>(tokens.size() / 2), static_cast<int32_t>(tokens.size() * 2 / 3)};
    const SamplingContext context = {tokens, static_cast<int32_t>(tokens.size() / 3),
                                     absl::MakeConstSpan(&appended, 1)};
    if (!AppendSelection(params, context, 1 << 20, &selections, &changes)) continue;  // the third bias was one's twin
    const Backend::Selection& selection = selections.back();
    EXPECT_EQ(selection.draw.temperature, params.temperature);
    SamplingParams rest = params;
    rest.logit_bias.clear();
    rest.repetition_penalty = 1.0f;
    rest.frequency_penalty = rest.presence_penalty = 0.0f;
    SampledToken expected, actual;
    sampler.Sample(logits, params, context, &expected);
    sampler.Sample(Changed(logits, selection, changes), rest, context, &actual);
    EXPECT_EQ(actual.token, expected.token) << "round " << round;
  }
  EXPECT_GT(selections.size(), 250u);
}

TEST(TokenSelectionTest, TheDrawIsThatOfSeedAndPosition) {
  SamplingParams params;
  params.seed = 11;
  params.temperature = 0.5f;
  params.top_k = 5;
  params.top_p = 0.8f;
  params.min_p = 0.1f;
  params.logprobs = 3;
  const std::vector<TokenId> tokens(9, TokenId{1});
  std::vector<Backend::Selection> selections;
  std::vector<Backend::LogitChange> changes;
  ASSERT_TRUE(AppendSelection(params, {tokens, 9}, 0, &selections, &changes));
  EXPECT_EQ(selections[0].draw.uniform, UniformAt(11, 9));
  EXPECT_EQ(selections[0].top_k, 5);
  EXPECT_EQ(selections[0].top_p, 0.8f);
  EXPECT_EQ(selections[0].min_p, 0.1f);
  EXPECT_EQ(selections[0].logprobs, 3);
  EXPECT_EQ(selections[0].change_count, 0);
  params.top_k = 1;
  ASSERT_TRUE(AppendSelection(params, {tokens, 9}, 0, &selections, &changes));
  EXPECT_EQ(selections[1].draw.temperature, 0.0f);
}

TEST(TokenSelectionTest, TooManyChangesAndTwoBiasesOfATokenAreLeftToTheSampler) {
  std::vector<Backend::Selection> selections;
  std::vector<Backend::LogitChange> changes;
  const std::vector<TokenId> tokens = {TokenId{1}, TokenId{2}, TokenId{3}};
  SamplingParams params;
  params.repetition_penalty = 1.1f;
  EXPECT_TRUE(AppendSelection(params, {tokens, 3}, 5, &selections, &changes));
  EXPECT_FALSE(AppendSelection(params, {tokens, 3}, 5, &selections, &changes));
  EXPECT_EQ(changes.size(), 3u);
  params = SamplingParams();
  params.logit_bias = {{TokenId{4}, 1.0f}, {TokenId{4}, 1.0f}};
  EXPECT_FALSE(AppendSelection(params, {tokens, 3}, 100, &selections, &changes));
  EXPECT_EQ(selections.size(), 1u);
}

}  // namespace
}  // namespace fermata
