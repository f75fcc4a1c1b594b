// Goal: tokens are drawn from the distribution that the parameters describe, and are a function of (seed, position)
// alone. Method: small vocabularies whose distribution is known; counts over many positions against it, with a
// tolerance of five standard deviations.

#include "engine/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <vector>

#include "engine/model/random_stream.h"
#include "gtest/gtest.h"

namespace fermata {
namespace {

constexpr int kDraws = 20000;

std::vector<TokenId> Ids(const std::vector<int32_t>& values) {
  std::vector<TokenId> tokens;
  for (const int32_t value : values) tokens.push_back(TokenId{value});
  return tokens;
}

SampledToken SampleOnce(const std::vector<float>& logits, const SamplingParams& params,
                        const std::vector<TokenId>& tokens = {}, int32_t prompt = 0) {
  Sampler sampler;
  SampledToken sampled;
  sampler.Sample(logits, params, {tokens, prompt}, &sampled);
  return sampled;
}

// How often each token comes over positions 0, 1, 2, ...
std::map<int32_t, int> Draw(const std::vector<float>& logits, const SamplingParams& params) {
  Sampler sampler;
  std::map<int32_t, int> counts;
  std::vector<TokenId> tokens;
  for (int i = 0; i < kDraws; ++i) {
    SampledToken sampled;
    sampler.Sample(logits, params, {tokens, static_cast<int32_t>(tokens.size())}, &sampled);
    EXPECT_TRUE(sampled.status.ok());
    ++counts[Value(sampled.token)];
    tokens.push_back(TokenId{0});
  }
  return counts;
}

void ExpectShare(int count, double probability) {
  const double deviation = std::sqrt(kDraws * probability * (1 - probability));
  EXPECT_NEAR(count, kDraws * probability, 5 * deviation);
}

const std::vector<float> kLogits = {std::log(0.1f), std::log(0.5f), std::log(0.3f), std::log(0.08f), std::log(0.02f)};

TEST(SamplerTest, GreedyTakesTheMostLikelyAndTheLowestIdAmongEquals) {
  SamplingParams params;
  params.temperature = 0;
  EXPECT_EQ(SampleOnce(kLogits, params).token, TokenId{1});
  EXPECT_EQ(SampleOnce({1.0f, 3.0f, 3.0f}, params).token, TokenId{1});
}

TEST(SamplerTest, TemperatureOneDrawsTheModelsDistribution) {
  const std::map<int32_t, int> counts = Draw(kLogits, SamplingParams());
  ExpectShare(counts.at(0), 0.1);
  ExpectShare(counts.at(1), 0.5);
  ExpectShare(counts.at(2), 0.3);
  ExpectShare(counts.at(3), 0.08);
  ExpectShare(counts.at(4), 0.02);
}

TEST(SamplerTest, TemperatureSharpens) {
  SamplingParams params;
  params.temperature = 0.5f;  // squares the probabilities
  const double total = 0.01 + 0.25 + 0.09 + 0.0064 + 0.0004;
  const std::map<int32_t, int> counts = Draw(kLogits, params);
  ExpectShare(counts.at(1), 0.25 / total);
  ExpectShare(counts.at(2), 0.09 / total);
}

TEST(SamplerTest, TopKTopPAndMinPKeepTheMostLikely) {
  SamplingParams top_k;
  top_k.top_k = 2;
  std::map<int32_t, int> counts = Draw(kLogits, top_k);
  EXPECT_EQ(counts.size(), 2u);
  ExpectShare(counts.at(1), 0.5 / 0.8);
  SamplingParams top_p;
  top_p.top_p = 0.85f;  // 0.5 + 0.3 + 0.1
  counts = Draw(kLogits, top_p);
  EXPECT_EQ(counts.size(), 3u);
  ExpectShare(counts.at(0), 0.1 / 0.9);
  SamplingParams min_p;
  min_p.min_p = 0.15f;  // at least 0.075
  counts = Draw(kLogits, min_p);
  EXPECT_EQ(counts.size(), 4u);
  SamplingParams tiny;
  tiny.top_p = 1e-6f;
  EXPECT_EQ(Draw(kLogits, tiny).size(), 1u);
}

TEST(SamplerTest, TruncationOfALargeVocabularyKeepsItsMass) {
  // Flat: top-p must look at far more candidates than are sorted at first.
  const std::vector<float> flat(5000, 1.0f);
  SamplingParams params;
  params.top_p = 0.5f;
  const std::map<int32_t, int> counts = Draw(flat, params);
  EXPECT_GT(counts.size(), 2400u);
  EXPECT_LE(counts.rbegin()->first, 2500);  // ties go to the lower id
}

// Sorts everything.
int32_t PlainNucleusDraw(const std::vector<float>& logits, const SamplingParams& params, uint64_t position) {
  std::vector<int32_t> tokens(logits.size());
  std::iota(tokens.begin(), tokens.end(), 0);
  std::stable_sort(tokens.begin(), tokens.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  const double largest = logits[tokens[0]];
  const auto weight = [&](int32_t token) { return std::exp((logits[token] - largest) / params.temperature); };
  double total = 0;
  for (const int32_t token : tokens) total += weight(token);
  double kept = 0;
  size_t count = 0;
  while (count < tokens.size() && kept < params.top_p * total) {
    const double next = weight(tokens[count]);
    if (next < params.min_p || next == 0) break;
    kept += next;
    ++count;
  }
  double sum = 0;
  for (size_t i = 0; i < count; ++i) {
    sum += weight(tokens[i]);
    if (sum > UniformAt(params.seed, position) * kept) return tokens[i];
  }
  return tokens[0];
}

TEST(SamplerTest, TheNucleusIsWhatSortingLeaves) {
  std::mt19937 random(8);
  std::normal_distribution<float> normal;
  for (const float spread : {0.01f, 1.0f, 5.0f}) {
    std::vector<float> logits(9000);
    for (float& logit : logits) logit = spread * normal(random);
    logits[17] = -std::numeric_limits<float>::infinity();
    for (const float top_p : {0.1f, 0.9f, 1.0f}) {
      for (const float min_p : {0.0f, 0.02f, 1.0f}) {
        if (top_p == 1.0f && min_p == 0.0f) continue;  // nothing is left out
        SamplingParams params;
        params.seed = 11;
        params.temperature = 0.8f;
        params.top_p = top_p;
        params.min_p = min_p;
        for (int position = 0; position < 20; ++position) {
          const std::vector<TokenId> context(position, TokenId{0});
          EXPECT_EQ(Value(SampleOnce(logits, params, context, position).token),
                    PlainNucleusDraw(logits, params, position))
              << spread << ", top_p " << top_p << ", min_p " << min_p << " at " << position;
        }
      }
    }
  }
}

TEST(SamplerTest, SeedAndPositionAloneDecide) {
  SamplingParams params;
  params.seed = 7;
  const std::vector<TokenId> at3 = Ids({0, 0, 0});
  const std::vector<TokenId> other3 = Ids({4, 1, 2});
  EXPECT_EQ(SampleOnce(kLogits, params, at3).token, SampleOnce(kLogits, params, other3).token);
  EXPECT_EQ(UniformAt(7, 3), UniformAt(7, 3));
  EXPECT_NE(UniformAt(7, 3), UniformAt(7, 4));
  EXPECT_NE(UniformAt(7, 3), UniformAt(8, 3));
  double sum = 0;
  for (int i = 0; i < kDraws; ++i) sum += UniformAt(1, i);
  EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(1.0 / 12 / kDraws));
}

TEST(SamplerTest, PenaltiesAndBiasMoveLogits) {
  SamplingParams params;
  params.temperature = 0;
  params.frequency_penalty = 0.3f;
  // Twice in the output: 0.6 off. In the prompt alone: nothing.
  EXPECT_EQ(SampleOnce(kLogits, params, Ids({1, 1}), /*prompt=*/2).token, TokenId{1});
  EXPECT_EQ(SampleOnce(kLogits, params, Ids({1, 1}), /*prompt=*/0).token, TokenId{2});
  params.frequency_penalty = 0;
  params.presence_penalty = 0.6f;
  EXPECT_EQ(SampleOnce(kLogits, params, Ids({0, 1}), /*prompt=*/1).token, TokenId{2});
  params.presence_penalty = 0;
  params.repetition_penalty = 2.0f;  // negative logits are multiplied; the prompt counts
  EXPECT_EQ(SampleOnce(kLogits, params, Ids({1}), /*prompt=*/1).token, TokenId{2});
  params.repetition_penalty = 1.0f;
  params.logit_bias = {{TokenId{4}, 100.0f}};
  EXPECT_EQ(SampleOnce(kLogits, params).token, TokenId{4});
}

TEST(SamplerTest, LogprobsAreOfTheModelsOwnDistribution) {
  SamplingParams params;
  params.temperature = 0;
  params.logit_bias = {{TokenId{4}, 100.0f}};
  params.logprobs = 2;
  const SampledToken sampled = SampleOnce(kLogits, params);
  EXPECT_EQ(sampled.token, TokenId{4});
  EXPECT_NEAR(sampled.logprobs.logprob, std::log(0.02), 1e-5);
  ASSERT_EQ(sampled.logprobs.top.size(), 2u);
  EXPECT_EQ(sampled.logprobs.top[0].first, TokenId{1});
  EXPECT_NEAR(sampled.logprobs.top[0].second, std::log(0.5), 1e-5);
}

TEST(SamplerTest, LogitsThatAreNoNumbersFailTheRow) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(SampleOnce({1.0f, nan, 2.0f}, SamplingParams()).status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(SampleOnce({1.0f, infinity}, SamplingParams()).status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(SampleOnce({-infinity, -infinity}, SamplingParams()).status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(SampleOnce({-infinity, 1.0f}, SamplingParams()).token, TokenId{1});
}

}  // namespace
}  // namespace fermata
