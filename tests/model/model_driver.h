// Drives a ModelRunner without an engine: one or more sequences, step by step, each in blocks of its own.

#ifndef FERMATA_TESTS_MODEL_MODEL_DRIVER_H_
#define FERMATA_TESTS_MODEL_MODEL_DRIVER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/core/model_runner.h"
#include "engine/model/load_model.h"

namespace fermata {

// A sequence that grows: its tokens, and how many of them are computed.
struct DrivenSequence {
  std::vector<TokenId> context;
  int32_t prompt_token_count = 0;
  int32_t computed = 0;
  std::vector<BlockId> blocks;
  SamplingParams sampling;
  std::vector<TokenLogprobs> logprobs;  // of each sampled token, if asked for
};

class ModelDriver {
 public:
  struct Options {
    std::string path;
    CpuKernels kernels = CpuKernels::kFast;
    int32_t threads = 2;
    int32_t block_count = 64;
    int32_t block_tokens = 16;
    int32_t max_step_tokens = 256;
  };

  // Fails the test if the model cannot be loaded.
  explicit ModelDriver(const Options& options);

  const LoadedModel& model() const { return model_; }

  // A greedy sequence with log-probabilities of `top` candidates. Its blocks come from the far end of the pool,
  // backwards, so that neighbours are not in order.
  DrivenSequence Begin(const std::vector<TokenId>& prompt, int32_t capacity, int32_t top = 0);

  // One step: the next token_counts[i] tokens of each sequence. Where the last of its context is computed, the sampled
  // token is appended.
  void Step(const std::vector<DrivenSequence*>& sequences, const std::vector<int32_t>& token_counts);

  // Prefills in chunks of at most `chunk` tokens, then decodes, until `output_count` tokens exist.
  void Run(DrivenSequence& sequence, int32_t chunk, int32_t output_count);

 private:
  LoadedModel model_;
  std::unique_ptr<ModelRunner> runner_;
  int32_t next_block_;
  int32_t block_tokens_;
  int64_t step_ = 0;
};

// Output tokens of `sequence`.
std::vector<int32_t> OutputOf(const DrivenSequence& sequence);

}  // namespace fermata

#endif  // FERMATA_TESTS_MODEL_MODEL_DRIVER_H_
