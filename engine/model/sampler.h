// From logits to a token.

#ifndef FERMATA_ENGINE_MODEL_SAMPLER_H_
#define FERMATA_ENGINE_MODEL_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/core/ids.h"
#include "engine/core/model_runner.h"
#include "engine/core/sampling_params.h"
#include "engine/model/logit_weights.h"
#include "engine/model/weighted_order.h"

namespace fermata {

// What is known of the generation whose next token is chosen.
struct SamplingContext {
  absl::Span<const TokenId> tokens;  // prompt, then output
  int32_t prompt_token_count = 0;
  absl::Span<const TokenRange> appended = {};  // what of the rest is no output
};

// Sets `tokens` to the output tokens of `context`, sorted, each as often as it came.
void SortOutput(const SamplingContext& context, std::vector<int32_t>* tokens);

// A pure function but for the memory it keeps. Order of what is done to the logits: bias, repetition penalty (Keskar et
// al., "CTRL", 2019), frequency and presence penalties; then greedy, or temperature, top-k, top-p (Holtzman et al.,
// 2019) and min-p together on what is left. Ties go to the lower token id. Log-probabilities are of the logits as the
// model gave them.
class Sampler {
 public:
  // `logits` has one for each token of the vocabulary. The random number is that of (params.seed, tokens.size()). Sets
  // `token`, `logprobs` (if asked for) and `status`: INTERNAL if the logits are not numbers. Leaves `slice` alone.
  void Sample(absl::Span<const float> logits, const SamplingParams& params, const SamplingContext& context,
              SampledToken* sampled);

 private:
  struct Candidate {
    float logit;
    int32_t token;
  };

  // Copies the logits to adjusted_ and applies bias and penalties.
  void Adjust(absl::Span<const float> logits, const SamplingParams& params, const SamplingContext& context);
  void Penalise(const SamplingParams& params, const SamplingContext& context);

  int32_t SampleRandomly(absl::Span<const float> logits, float largest, const SamplingParams& params,
                         uint64_t position);

  // Draws from what top-p and min-p leave of all, or of the top-k.
  int32_t DrawFromNucleus(absl::Span<const float> logits, float largest, const SamplingParams& params, double uniform);
  int32_t DrawFromTopK(absl::Span<const float> logits, float largest, const SamplingParams& params, double uniform);

  void FillLogprobs(absl::Span<const float> logits, int32_t top_count, SampledToken* sampled);

  // Sorts the most likely `count` of candidates_ to the front.
  void SortUpTo(size_t count);

  // Kept for their memory.
  std::vector<float> adjusted_;
  std::vector<Candidate> candidates_;
  LogitWeights weights_;
  std::vector<double> every_weight_;
  WeightedOrder order_;
  std::vector<int32_t> seen_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_SAMPLER_H_
