// Goal: the default model's logits are those of the reference, on both paths; and a row's logits depend on nothing but
// its own tokens.
// Method: twelve prompts with the reference's 32 tokens fed back and its five largest logits at each. On the exact path
// all of them, and the same first token everywhere: so a greedy run gives the same tokens. On the fast path what 8-bit
// activations cost, whatever the type of the KV cache: its rounding, by at most 2^-9, is below theirs, 1/254 of a
// block's largest (family_golden_test has it alone). Then one text cut in other ways, in other company, on other
// threads and instruction sets: every bit of every logit.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/cpu_kernels.h"
#include "tests/fakes/default_model.h"
#include "tests/fakes/golden_file.h"
#include "tests/model/logits_driver.h"

namespace fermata {
namespace {

using kernels::CpuBackend;
using kernels::CpuBackendOptions;
using kernels::KvType;

CpuBackendOptions Options(bool exact, int threads = 2) {
  CpuBackendOptions options = CpuBackend::BestOptions(threads);
  options.exact = exact;
  return options;
}

int32_t FirstOf(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

struct Golden {
  std::string name;
  std::vector<int32_t> prompt;
  std::vector<int32_t> output;
  nlohmann::json top5;  // [output][5][token, logit]
};

class LogitsGoldenTest : public testing::Test {
 protected:
  void SetUp() override {
    if (DefaultModelPath().empty()) GTEST_SKIP() << "FERMATA_MODEL is not set";
    for (const nlohmann::json& golden : ReadGoldens("smollm2-135m-q4_1.jsonl")) {
      goldens_.push_back({golden["name"], golden["prompt_token_ids"], golden["output_token_ids"], golden["top5"]});
    }
    ASSERT_EQ(goldens_.size(), 12u);
  }

  // The logits from which each of the golden's output tokens was chosen.
  static std::vector<std::vector<float>> LogitsOf(LogitsDriver& driver, const Golden& golden) {
    std::vector<int32_t> tokens = golden.prompt;
    tokens.insert(tokens.end(), golden.output.begin(), golden.output.end() - 1);
    ForcedSequence sequence = driver.Begin(tokens, static_cast<int32_t>(golden.prompt.size()) - 1);
    driver.Run(sequence, LogitsDriver::kMaxRows);
    return std::move(sequence.logits);
  }

  std::vector<Golden> goldens_;
};

TEST_F(LogitsGoldenTest, ExactPathGivesTheReferenceTokensAndLogits) {
  constexpr double kTolerance = 0.01;
  LogitsDriver driver(DefaultModelPath(), Options(/*exact=*/true));
  for (const Golden& golden : goldens_) {
    const std::vector<std::vector<float>> logits = LogitsOf(driver, golden);
    ASSERT_EQ(logits.size(), golden.output.size());
    for (size_t n = 0; n < logits.size(); ++n) {
      EXPECT_EQ(FirstOf(logits[n]), golden.output[n]) << golden.name << " at " << n;
      for (const nlohmann::json& entry : golden.top5[n]) {
        const int32_t token = entry[0];
        EXPECT_NEAR(logits[n][token], entry[1].get<double>(), kTolerance) << golden.name << " at " << n;
      }
    }
  }
}

class FastGoldenTest : public LogitsGoldenTest, public testing::WithParamInterface<KvType> {};

TEST_P(FastGoldenTest, StaysWithinWhatEightBitActivationsCost) {
  constexpr double kMeanError = 0.2;
  constexpr double kSameFirstShare = 0.96;
  constexpr double kSafeLead = 0.5;
  CpuBackendOptions options = Options(/*exact=*/false);
  options.kv_type = GetParam();
  LogitsDriver driver(DefaultModelPath(), options);
  double error_sum = 0;
  int error_count = 0;
  int same_count = 0;
  int position_count = 0;
  for (const Golden& golden : goldens_) {
    const std::vector<std::vector<float>> logits = LogitsOf(driver, golden);
    for (size_t n = 0; n < logits.size(); ++n, ++position_count) {
      for (const nlohmann::json& entry : golden.top5[n]) {
        const int32_t token = entry[0];
        error_sum += std::fabs(logits[n][token] - entry[1].get<double>());
        ++error_count;
      }
      const double lead = golden.top5[n][0][1].get<double>() - golden.top5[n][1][1].get<double>();
      const bool same = FirstOf(logits[n]) == golden.output[n];
      same_count += same ? 1 : 0;
      EXPECT_TRUE(same || lead < kSafeLead) << golden.name << " at " << n << ": lead " << lead;
    }
  }
  const double mean_error = error_sum / error_count;
  const double same_share = static_cast<double>(same_count) / position_count;
  RecordProperty("mean_error", std::to_string(mean_error));
  RecordProperty("same_first_share", std::to_string(same_share));
  EXPECT_LE(mean_error, kMeanError);
  EXPECT_GE(same_share, kSameFirstShare);
}

INSTANTIATE_TEST_SUITE_P(EveryKvType, FastGoldenTest, testing::Values(KvType::kF32, KvType::kF16, KvType::kBF16),
                         [](const auto& info) { return std::string(kernels::Name(info.param)); });

class LogitsInvarianceTest : public LogitsGoldenTest, public testing::WithParamInterface<bool> {
 protected:
  bool exact() const { return GetParam(); }

  // Longer than every chunk that it is cut into.
  std::vector<int32_t> Text() const {
    std::vector<int32_t> text;
    for (const Golden& golden : goldens_) text.insert(text.end(), golden.prompt.begin(), golden.prompt.end());
    text.resize(kTextTokens);
    return text;
  }

  static void ExpectSameBits(const ForcedSequence& a, const ForcedSequence& b, const std::string& what) {
    ASSERT_EQ(a.logits.size(), b.logits.size()) << what;
    for (size_t n = 0; n < a.logits.size(); ++n) EXPECT_TRUE(a.logits[n] == b.logits[n]) << what << " at " << n;
  }

  static constexpr int32_t kTextTokens = 75;
};

TEST_P(LogitsInvarianceTest, NeitherChunksNorCompanyChangeABit) {
  LogitsDriver driver(DefaultModelPath(), Options(exact()));
  ForcedSequence whole = driver.Begin(Text(), /*first_output=*/0);
  driver.Run(whole, LogitsDriver::kMaxRows);
  for (const int32_t chunk : {1, 7, 64}) {
    ForcedSequence cut = driver.Begin(Text(), /*first_output=*/0);
    driver.Run(cut, chunk);
    ExpectSameBits(cut, whole, "chunks of " + std::to_string(chunk));
  }
  // Between a prefill and a decode that are at other places of their lives.
  ForcedSequence beside = driver.Begin(Text(), /*first_output=*/0);
  ForcedSequence before = driver.Begin(goldens_[0].prompt, /*first_output=*/0);
  ForcedSequence after = driver.Begin(goldens_[1].prompt, /*first_output=*/0);
  const auto next = [](const ForcedSequence& sequence, int32_t count) {
    return std::min(count, static_cast<int32_t>(sequence.tokens.size()) - sequence.computed);
  };
  while (next(beside, 1) > 0) {
    std::vector<ForcedSequence*> sequences;
    std::vector<int32_t> counts;
    for (const auto& [sequence, count] : {std::pair(&before, 3), std::pair(&beside, 5), std::pair(&after, 1)}) {
      if (next(*sequence, count) == 0) continue;
      sequences.push_back(sequence);
      counts.push_back(next(*sequence, count));
    }
    driver.Step(sequences, counts);
  }
  ExpectSameBits(beside, whole, "beside others");
}

TEST_P(LogitsInvarianceTest, NeitherThreadsNorInstructionsChangeABit) {
  LogitsDriver one(DefaultModelPath(), Options(exact(), /*threads=*/1));
  ForcedSequence whole = one.Begin(Text(), /*first_output=*/0);
  one.Run(whole, LogitsDriver::kMaxRows);
  for (const int threads : {2, 3}) {
    LogitsDriver other(DefaultModelPath(), Options(exact(), threads));
    ForcedSequence sequence = other.Begin(Text(), /*first_output=*/0);
    other.Run(sequence, /*chunk=*/64);
    ExpectSameBits(sequence, whole, std::to_string(threads) + " threads");
  }
  if (exact()) return;
  for (const kernels::InstructionSet set : kernels::SupportedInstructionSets()) {
    CpuBackendOptions options = Options(/*exact=*/false);
    options.instruction_set = set;
    LogitsDriver other(DefaultModelPath(), options);
    ForcedSequence sequence = other.Begin(Text(), /*first_output=*/0);
    other.Run(sequence, LogitsDriver::kMaxRows);
    ExpectSameBits(sequence, whole, std::string(Name(set)));
  }
}

INSTANTIATE_TEST_SUITE_P(BothPaths, LogitsInvarianceTest, testing::Values(true, false),
                         [](const auto& info) { return info.param ? "Exact" : "Fast"; });

}  // namespace
}  // namespace fermata
