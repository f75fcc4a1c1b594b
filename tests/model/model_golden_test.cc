// Goal: the runner gives the default model's tokens, and they depend on nothing but the generation's own tokens.
// Method: greedy runs of twelve prompts against the reference's tokens. Then prompts cut in other ways, in other
// company and interrupted: the same tokens and log-probabilities, to the bit. (logits_golden_test looks at logits.)

#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fakes/default_model.h"
#include "tests/fakes/golden_file.h"
#include "tests/model/model_driver.h"

namespace fermata {
namespace {

constexpr int32_t kTop = 20;

std::vector<TokenId> Tokens(const nlohmann::json& values) {
  std::vector<TokenId> tokens;
  for (const int32_t value : values) tokens.push_back(TokenId{value});
  return tokens;
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

TEST_F(ModelGoldenTest, GreedyRunsOfTheExactPathGiveTheReferenceTokens) {
  ModelDriver driver(Options(CpuKernels::kExact));
  for (const nlohmann::json& golden : goldens_) {
    const std::vector<TokenId> prompt = Tokens(golden["prompt_token_ids"]);
    const std::vector<int32_t> expected = golden["output_token_ids"];
    const int32_t count = static_cast<int32_t>(expected.size());
    DrivenSequence sequence = driver.Begin(prompt, static_cast<int32_t>(prompt.size()) + count);
    driver.Run(sequence, /*chunk=*/256, count);
    EXPECT_EQ(OutputOf(sequence), expected) << golden["name"];
  }
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
