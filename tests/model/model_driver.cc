#include "tests/model/model_driver.h"

#include <algorithm>
#include <utility>

#include "glog/logging.h"

namespace fermata {
namespace {

LoadedModel Load(const ModelDriver::Options& options) {
  absl::StatusOr<LoadedModel> model =
      LoadModel({.path = options.path, .threads = options.threads, .cpu_kernels = options.kernels});
  CHECK(model.ok()) << model.status();
  return *std::move(model);
}

}  // namespace

ModelDriver::ModelDriver(const Options& options)
    : model_(Load(options)), next_block_(options.block_count), block_tokens_(options.block_tokens) {
  absl::StatusOr<std::unique_ptr<ModelRunner>> runner =
      model_.make_runner(options.block_count, options.block_tokens, options.max_step_tokens, /*max_rows=*/16);
  CHECK(runner.ok()) << runner.status();
  runner_ = *std::move(runner);
}

DrivenSequence ModelDriver::Begin(const std::vector<TokenId>& prompt, int32_t capacity, int32_t top) {
  DrivenSequence sequence;
  sequence.context = prompt;
  sequence.prompt_token_count = static_cast<int32_t>(prompt.size());
  for (int32_t covered = 0; covered < capacity; covered += block_tokens_) {
    CHECK_GT(next_block_, 0) << "the test's pool is too small";
    sequence.blocks.push_back(BlockId{--next_block_});
  }
  sequence.sampling.temperature = 0;
  sequence.sampling.logprobs = top;
  return sequence;
}

void ModelDriver::Step(const std::vector<DrivenSequence*>& sequences, const std::vector<int32_t>& token_counts) {
  std::vector<BatchSlice> slices;
  for (size_t i = 0; i < sequences.size(); ++i) {
    DrivenSequence& sequence = *sequences[i];
    slices.push_back({.key = GenerationKey{static_cast<int64_t>(i)},
                      .context = sequence.context,
                      .prompt_token_count = sequence.prompt_token_count,
                      .first_position = sequence.computed,
                      .token_count = token_counts[i],
                      .blocks = sequence.blocks,
                      .sample = sequence.computed + token_counts[i] == static_cast<int32_t>(sequence.context.size()),
                      .sampling = &sequence.sampling});
  }
  StepOutput output;
  const absl::Status status = runner_->Run({.step = ++step_, .slices = slices}, &output);
  CHECK(status.ok()) << status;
  for (size_t i = 0; i < sequences.size(); ++i) sequences[i]->computed += token_counts[i];
  for (SampledToken& sampled : output.sampled) {
    CHECK(sampled.status.ok()) << sampled.status;
    sequences[sampled.slice]->context.push_back(sampled.token);
    sequences[sampled.slice]->logprobs.push_back(std::move(sampled.logprobs));
  }
}

void ModelDriver::Run(DrivenSequence& sequence, int32_t chunk, int32_t output_count) {
  while (static_cast<int32_t>(sequence.context.size()) < sequence.prompt_token_count + output_count) {
    const int32_t pending = static_cast<int32_t>(sequence.context.size()) - sequence.computed;
    Step({&sequence}, {std::min(chunk, pending)});
  }
}

std::vector<int32_t> OutputOf(const DrivenSequence& sequence) {
  std::vector<int32_t> values;
  for (size_t i = sequence.prompt_token_count; i < sequence.context.size(); ++i)
    values.push_back(Value(sequence.context[i]));
  return values;
}

}  // namespace fermata
