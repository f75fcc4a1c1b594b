// Goal: the default model computes what it should, on both paths, and a row's result depends on nothing but its own
// tokens. Method: twelve prompts with the reference's tokens and largest logits. The runner gives log-probabilities, so
// logits are compared by their differences to the reference's first. Then prompts cut in other ways and in other
// company: equal to the bit.

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fakes/default_model.h"
#include "tests/fakes/golden_file.h"
#include "tests/model/model_driver.h"

namespace fermata {
namespace {

constexpr int32_t kOutputCount = 32;
constexpr int32_t kTop = 20;

std::vector<TokenId> Tokens(const nlohmann::json& values) {
  std::vector<TokenId> tokens;
  for (const int32_t value : values) tokens.push_back(TokenId{value});
  return tokens;
}

// By token: logits up to a constant that all share.
std::map<int32_t, double> TopOf(const TokenLogprobs& logprobs) {
  std::map<int32_t, double> top;
  for (const auto& [token, logprob] : logprobs.top) top[Value(token)] = logprob;
  return top;
}

class ModelGoldenTest : public testing::Test {
 protected:
  void SetUp() override {
    if (DefaultModelPath().empty()) GTEST_SKIP() << "FERMATA_MODEL is not set";
    goldens_ = ReadGoldens("smollm2-135m-q4_1.jsonl");
  }

  static ModelDriver::Options Options(CpuKernels kernels, int32_t threads = 2) {
    return {.path = DefaultModelPath(), .kernels = kernels, .threads = threads, .block_count = 512};
  }

  std::vector<nlohmann::json> goldens_;
};

TEST_F(ModelGoldenTest, ExactPathGivesTheReferenceTokensAndLogits) {
  ModelDriver driver(Options(CpuKernels::kExact));
  EXPECT_EQ(goldens_.size(), 12u);
  for (const nlohmann::json& golden : goldens_) {
    const std::vector<TokenId> prompt = Tokens(golden["prompt_token_ids"]);
    DrivenSequence sequence = driver.Begin(prompt, static_cast<int32_t>(prompt.size()) + kOutputCount, kTop);
    driver.Run(sequence, /*chunk=*/256, kOutputCount);
    EXPECT_EQ(OutputOf(sequence), golden["output_token_ids"].get<std::vector<int32_t>>()) << golden["name"];
    for (int32_t n = 0; n < kOutputCount; ++n) {
      const std::map<int32_t, double> top = TopOf(sequence.logprobs[n]);
      const nlohmann::json& reference = golden["top5"][n];
      const int32_t first = reference[0][0];
      for (const nlohmann::json& entry : reference) {
        const int32_t token = entry[0];
        ASSERT_TRUE(top.contains(token)) << golden["name"] << " at " << n;
        const double expected = entry[1].get<double>() - reference[0][1].get<double>();
        EXPECT_NEAR(top.at(token) - top.at(first), expected, 0.01) << golden["name"] << " at " << n;
      }
    }
  }
}

// The reference's tokens are fed back, whatever the fast path would have chosen.
TEST_F(ModelGoldenTest, FastPathStaysWithinWhatEightBitActivationsCost) {
  ModelDriver driver(Options(CpuKernels::kFast));
  double error_sum = 0;
  int64_t error_count = 0;
  int first_count = 0;
  int position_count = 0;
  for (const nlohmann::json& golden : goldens_) {
    const std::vector<TokenId> prompt = Tokens(golden["prompt_token_ids"]);
    DrivenSequence sequence = driver.Begin(prompt, static_cast<int32_t>(prompt.size()) + kOutputCount, kTop);
    for (int32_t n = 0; n < kOutputCount; ++n) {
      driver.Run(sequence, /*chunk=*/256, n + 1);
      const int32_t chosen = Value(sequence.context.back());
      sequence.context.back() = TokenId{golden["output_token_ids"][n].get<int32_t>()};
      const nlohmann::json& reference = golden["top5"][n];
      const std::map<int32_t, double> top = TopOf(sequence.logprobs[n]);
      // Logits are known up to a constant: the one that fits the five best.
      std::vector<double> differences;
      for (const nlohmann::json& entry : reference) {
        const auto it = top.find(entry[0].get<int32_t>());
        if (it != top.end()) differences.push_back(it->second - entry[1].get<double>());
      }
      ASSERT_FALSE(differences.empty());
      double shift = 0;
      for (const double difference : differences) shift += difference / static_cast<double>(differences.size());
      for (const double difference : differences) error_sum += std::fabs(difference - shift);
      error_count += static_cast<int64_t>(differences.size());
      const double lead = reference[0][1].get<double>() - reference[1][1].get<double>();
      const bool same = chosen == reference[0][0].get<int32_t>();
      first_count += same ? 1 : 0;
      ++position_count;
      EXPECT_TRUE(same || lead < 0.5) << golden["name"] << " at " << n << ": lead " << lead;
    }
  }
  const double mean_error = error_sum / static_cast<double>(error_count);
  const double share = static_cast<double>(first_count) / position_count;
  RecordProperty("mean_error", std::to_string(mean_error));
  RecordProperty("same_first_token", std::to_string(share));
  EXPECT_LE(mean_error, 0.2);
  EXPECT_GE(share, 0.96);
}

class InvarianceTest : public ModelGoldenTest, public testing::WithParamInterface<CpuKernels> {
 protected:
  // Tokens and all log-probabilities: equal only if the bits are.
  static void ExpectSame(const DrivenSequence& a, const DrivenSequence& b, const std::string& what) {
    EXPECT_EQ(OutputOf(a), OutputOf(b)) << what;
    ASSERT_EQ(a.logprobs.size(), b.logprobs.size());
    for (size_t n = 0; n < a.logprobs.size(); ++n) {
      EXPECT_EQ(a.logprobs[n].logprob, b.logprobs[n].logprob) << what << " at " << n;
      EXPECT_EQ(a.logprobs[n].top, b.logprobs[n].top) << what << " at " << n;
    }
  }

  // Long enough for every chunk size to cut it.
  std::vector<TokenId> LongPrompt() const {
    std::vector<TokenId> prompt;
    for (const nlohmann::json& golden : goldens_) {
      const std::vector<TokenId> tokens = Tokens(golden["prompt_token_ids"]);
      prompt.insert(prompt.end(), tokens.begin(), tokens.end());
    }
    prompt.resize(kLongPromptTokens);
    return prompt;
  }

  static constexpr int32_t kLongPromptTokens = 80;
};

TEST_P(InvarianceTest, ChunksCompanyAndThreadsChangeNoBit) {
  constexpr int32_t kOutputs = 6;
  const std::vector<TokenId> prompt = LongPrompt();
  const int32_t capacity = static_cast<int32_t>(prompt.size()) + kOutputs;
  ModelDriver driver(Options(GetParam()));
  DrivenSequence whole = driver.Begin(prompt, capacity, kTop);
  driver.Run(whole, /*chunk=*/256, kOutputs);
  for (const int32_t chunk : {1, 7, 64}) {
    DrivenSequence cut = driver.Begin(prompt, capacity, kTop);
    driver.Run(cut, chunk, kOutputs);
    ExpectSame(cut, whole, "chunks of " + std::to_string(chunk));
  }
  // Beside two others that are at other places of their lives.
  DrivenSequence beside = driver.Begin(prompt, capacity, kTop);
  DrivenSequence other = driver.Begin(Tokens(goldens_[0]["prompt_token_ids"]), 200);
  DrivenSequence third = driver.Begin(Tokens(goldens_[1]["prompt_token_ids"]), 200);
  while (static_cast<int32_t>(beside.context.size()) < beside.prompt_token_count + kOutputs) {
    std::vector<int32_t> counts;
    for (const DrivenSequence* sequence : {&other, &beside, &third}) {
      counts.push_back(std::min<int32_t>(5, static_cast<int32_t>(sequence->context.size()) - sequence->computed));
    }
    driver.Step({&other, &beside, &third}, counts);
  }
  ExpectSame(beside, whole, "beside others");
  for (const int32_t threads : {1, 3}) {
    ModelDriver another(Options(GetParam(), threads));
    DrivenSequence sequence = another.Begin(prompt, capacity, kTop);
    another.Run(sequence, /*chunk=*/256, kOutputs);
    ExpectSame(sequence, whole, std::to_string(threads) + " threads");
  }
}

TEST_P(InvarianceTest, RestingAtEveryTokenChangesNoBit) {
  constexpr int32_t kOutputs = 12;
  const std::vector<TokenId> prompt = Tokens(goldens_[0]["prompt_token_ids"]);
  const int32_t capacity = static_cast<int32_t>(prompt.size()) + kOutputs;
  ModelDriver driver(Options(GetParam()));
  DrivenSequence whole = driver.Begin(prompt, capacity, kTop);
  driver.Run(whole, /*chunk=*/256, kOutputs);
  DrivenSequence rested = driver.Begin(prompt, capacity, kTop);
  for (int32_t n = 1; n <= kOutputs; ++n) {
    driver.Run(rested, /*chunk=*/256, n);
    // Meanwhile another one uses the model.
    DrivenSequence other = driver.Begin(Tokens(goldens_[2]["prompt_token_ids"]), 100);
    driver.Run(other, /*chunk=*/16, 2);
  }
  ExpectSame(rested, whole, "rested");
}

INSTANTIATE_TEST_SUITE_P(BothPaths, InvarianceTest, testing::Values(CpuKernels::kExact, CpuKernels::kFast),
                         [](const auto& info) { return info.param == CpuKernels::kExact ? "Exact" : "Fast"; });

}  // namespace
}  // namespace fermata
