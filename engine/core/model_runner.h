// The engine's only view of a model: run one batch, get one sampled token for each row that asked for one.

#ifndef FERMATA_ENGINE_CORE_MODEL_RUNNER_H_
#define FERMATA_ENGINE_CORE_MODEL_RUNNER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/core/ids.h"
#include "engine/core/sampling_params.h"

namespace fermata {

// Positions of a context, from `begin` to before `end`.
struct TokenRange {
  int32_t begin = 0;
  int32_t end = 0;
};

// One generation's part in a step. The tokens to compute are context[first_position .. first_position + token_count);
// the KV of everything before them is already written in the blocks.
struct BatchSlice {
  GenerationKey key{};

  // Prompt, then output so far, with what was appended between: context.size() >= first_position + token_count.
  absl::Span<const TokenId> context;

  // How many of `context`, from its beginning, are prompt (the rest is output): what penalties need.
  int32_t prompt_token_count = 0;

  // What was appended to the output later, in order: it counts as prompt, too.
  absl::Span<const TokenRange> appended = {};

  int32_t first_position = 0;
  int32_t token_count = 0;  // at least 1

  // Physical block of each logical one: position p is slot p % block_tokens of blocks[p / block_tokens]. Covers at
  // least first_position + token_count positions.
  absl::Span<const BlockId> blocks;

  // True if the last computed token is the last of `context`: its logits are sampled, the new token's position is
  // context.size().
  bool sample = false;

  const SamplingParams* sampling = nullptr;  // never null
};

// The work of one step. Borrowed from the engine: valid during Run() only. Slices are of distinct generations.
struct Batch {
  int64_t step = 0;  // the number of this step
  absl::Span<const BatchSlice> slices;

  // Null, or for a runner that CallsLaunched().
  std::function<void()> launched = nullptr;
};

// Log-probabilities (natural, of the distribution before temperature, truncation and penalties) at one output position.
struct TokenLogprobs {
  float logprob = 0;                           // of the sampled token
  std::vector<std::pair<TokenId, float>> top;  // most likely first
};

struct SampledToken {
  int32_t slice = 0;    // index into Batch::slices
  absl::Status status;  // not OK: this generation alone has failed (for instance, logits are not numbers)
  TokenId token{};
  TokenLogprobs logprobs;  // filled if SamplingParams::logprobs >= 0
};

// Reused from step to step; Run() clears it.
struct StepOutput {
  std::vector<SampledToken> sampled;  // one for each slice with `sample`, in order of slices
};

// A block of KV, over all layers, to be copied between the device's cache and memory of the host.
struct KvCopy {
  BlockId block{};
  std::byte* host = nullptr;  // kv_block_bytes() there
};

// Run() is called from one thread only. A row's result depends on nothing but its own tokens: not on the other rows,
// not on how its prefill was cut, not on which blocks it has. That is what makes pauses invisible.
class ModelRunner {
 public:
  virtual ~ModelRunner() = default;

  // Computes the batch: writes KV of every computed token, samples where asked. Blocks until done. A non-OK status
  // means that the whole step failed and that no row of it can be trusted.
  virtual absl::Status Run(const Batch& batch, StepOutput* output) = 0;

  // Whether Run() calls Batch::launched, if that is set, once on its own thread and soon, when a device has its work
  // and nothing is left but to wait. What its caller does then costs the device nothing, as it would between two steps.
  virtual bool CallsLaunched() const { return false; }

  // What follows may be called from any thread, beside Run(), for blocks that no batch has meanwhile. 0: KV cannot be
  // copied, and nothing else of this is called.
  virtual int64_t kv_block_bytes() const { return 0; }

  // Memory that copies are fast from and to. RESOURCE_EXHAUSTED if there is none.
  virtual absl::StatusOr<std::shared_ptr<std::byte>> AllocateHostKv(int64_t bytes);

  // Return when all is copied. Not OK: nothing of it can be trusted.
  virtual absl::Status CopyKvToHost(absl::Span<const KvCopy> copies);
  virtual absl::Status CopyKvFromHost(absl::Span<const KvCopy> copies);
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_MODEL_RUNNER_H_
