// Goal: the fake model gives what the oracle says, however it is run, and names every kind of wrong bookkeeping.
// Method: batches made by hand, right ones and wrong ones.

#include "tests/fakes/fake_model_runner.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_model.h"
#include "tests/fakes/fake_token_decoder.h"

namespace fermata {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

FakeModelRunnerOptions SmallPool() { return {.block_count = 8, .block_tokens = 2}; }

// A generation run by hand, in the blocks that it is given.
class HandRun {
 public:
  HandRun(int64_t key, std::vector<TokenId> prompt, std::vector<BlockId> blocks) : blocks_(std::move(blocks)) {
    spec_.prompt = std::move(prompt);
    spec_.sampling.max_tokens = 4;
    spec_.sampling.seed = 7;
    spec_.sampling.ignore_eos = true;
    context_ = spec_.prompt;
    slice_.key = GenerationKey{key};
    slice_.prompt_token_count = static_cast<int32_t>(context_.size());
    slice_.sampling = &spec_.sampling;
  }

  // The next `token_count` tokens.
  BatchSlice Slice(int32_t token_count) {
    slice_.context = context_;
    slice_.blocks = blocks_;
    slice_.first_position += slice_.token_count;
    slice_.token_count = token_count;
    slice_.sample = slice_.first_position + token_count == static_cast<int32_t>(context_.size());
    return slice_;
  }

  void Append(TokenId token) { context_.push_back(token); }
  std::vector<BlockId>& blocks() { return blocks_; }
  const GenerationSpec& spec() const { return spec_; }
  std::vector<TokenId> output() const { return {context_.begin() + spec_.prompt.size(), context_.end()}; }

 private:
  GenerationSpec spec_;
  std::vector<TokenId> context_;
  std::vector<BlockId> blocks_;
  BatchSlice slice_;
};

std::vector<TokenId> Prompt(int length) {
  std::vector<TokenId> prompt;
  for (int i = 0; i < length; ++i) prompt.push_back(TokenId{(i * 7 + 3) % FakeTokenDecoder::kVocabularySize});
  return prompt;
}

class FakeModelRunnerTest : public testing::Test {
 protected:
  std::vector<SampledToken> Run(const std::vector<BatchSlice>& slices) {
    StepOutput output;
    status_ = runner_.Run({.step = ++step_, .slices = slices}, &output);
    return output.sampled;
  }

  FakeModelRunner runner_{SmallPool()};
  FakeTokenDecoder decoder_;
  absl::Status status_;
  int64_t step_ = 0;
};

TEST_F(FakeModelRunnerTest, GivesTheOracleOutputInChunksAndInScatteredBlocks) {
  HandRun run(1, Prompt(5), {BlockId{6}, BlockId{1}, BlockId{4}, BlockId{0}, BlockId{3}});
  EXPECT_THAT(Run({run.Slice(2)}), IsEmpty());
  std::vector<SampledToken> sampled = Run({run.Slice(3)});
  for (int i = 0; i < 4; ++i) {
    ASSERT_EQ(sampled.size(), 1u);
    run.Append(sampled[0].token);
    if (i < 3) sampled = Run({run.Slice(1)});
  }
  EXPECT_EQ(run.output(), ExpectedOutput(run.spec(), decoder_).tokens);
  EXPECT_THAT(runner_.violations(), IsEmpty());
}

TEST_F(FakeModelRunnerTest, NamesAContextThatIsNotWhereItWasWritten) {
  HandRun run(1, Prompt(4), {BlockId{0}, BlockId{1}});
  Run({run.Slice(2)});
  run.blocks()[0] = BlockId{5};
  Run({run.Slice(2)});
  EXPECT_THAT(runner_.violations(), ElementsAre(HasSubstr("position 0 was not found"), HasSubstr("position 1")));
}

TEST_F(FakeModelRunnerTest, NamesTwoThatWriteIntoOneSlot) {
  HandRun one(1, Prompt(2), {BlockId{2}});
  HandRun other(2, Prompt(2), {BlockId{2}});
  Run({one.Slice(2), other.Slice(2)});
  EXPECT_THAT(runner_.violations(), testing::Contains(HasSubstr("its slot was written in this step")));
}

TEST_F(FakeModelRunnerTest, NamesABlockOutsideThePool) {
  HandRun run(1, Prompt(2), {BlockId{8}});
  Run({run.Slice(2)});
  EXPECT_THAT(runner_.violations(), testing::Contains(HasSubstr("block 8 is not of the pool")));
}

TEST_F(FakeModelRunnerTest, NamesAGenerationThatIsTwiceInABatch) {
  HandRun run(1, Prompt(2), {BlockId{0}});
  const BatchSlice slice = run.Slice(2);
  Run({slice, slice});
  EXPECT_THAT(runner_.violations(), testing::Contains(HasSubstr("twice in one batch")));
}

TEST_F(FakeModelRunnerTest, NamesMoreTokensThanTheContextHas) {
  HandRun run(1, Prompt(2), {BlockId{0}, BlockId{1}});
  BatchSlice slice = run.Slice(2);
  slice.token_count = 3;
  Run({slice});
  EXPECT_THAT(runner_.violations(), testing::Contains(HasSubstr("beyond its context")));
}

TEST(FakeModelRunnerHooksTest, FailTheStepOrOneRow) {
  FakeModelRunnerOptions options = SmallPool();
  options.before_run = [](const Batch& batch) {
    return batch.step == 1 ? absl::InternalError("no device") : absl::OkStatus();
  };
  options.before_sample = [](const BatchSlice& slice) {
    return slice.key == GenerationKey{2} ? absl::InternalError("not a number") : absl::OkStatus();
  };
  FakeModelRunner runner(options);
  HandRun one(1, Prompt(2), {BlockId{0}});
  HandRun other(2, Prompt(2), {BlockId{1}});
  const std::vector<BatchSlice> slices = {one.Slice(2), other.Slice(2)};
  StepOutput output;
  EXPECT_EQ(runner.Run({.step = 1, .slices = slices}, &output).code(), absl::StatusCode::kInternal);
  ASSERT_TRUE(runner.Run({.step = 2, .slices = slices}, &output).ok());
  ASSERT_EQ(output.sampled.size(), 2u);
  EXPECT_TRUE(output.sampled[0].status.ok());
  EXPECT_FALSE(output.sampled[1].status.ok());
}

TEST(ExpectedOutputTest, EndsAtWhateverComesFirst) {
  const FakeTokenDecoder decoder;
  GenerationSpec spec;
  spec.prompt = Prompt(3);
  spec.sampling.max_tokens = 30;
  spec.sampling.ignore_eos = true;
  const FakeOutput whole = ExpectedOutput(spec, decoder);
  EXPECT_EQ(whole.reason, FinishReason::kLength);
  ASSERT_EQ(whole.tokens.size(), 30u);

  spec.sampling.stop_token_ids = {whole.tokens[10]};
  const FakeOutput stopped = ExpectedOutput(spec, decoder);
  EXPECT_EQ(stopped.reason, FinishReason::kStop);
  EXPECT_LE(stopped.tokens.size(), 11u);
  EXPECT_EQ(stopped.tokens.back(), whole.tokens[10]);

  spec.sampling.stop_token_ids.clear();
  spec.sampling.stop = {whole.text.substr(0, 1)};
  const FakeOutput cut = ExpectedOutput(spec, decoder);
  EXPECT_EQ(cut.reason, FinishReason::kStop);
  EXPECT_EQ(cut.text, "");
}

}  // namespace
}  // namespace fermata
