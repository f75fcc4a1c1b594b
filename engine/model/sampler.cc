#include "engine/model/sampler.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "engine/model/arg_max.h"
#include "engine/model/random_stream.h"

namespace fermata {
namespace {

bool NeedsAdjusting(const SamplingParams& params) {
  return !params.logit_bias.empty() || params.repetition_penalty != 1.0f || params.frequency_penalty != 0.0f ||
         params.presence_penalty != 0.0f;
}

bool IsTruncated(const SamplingParams& params) {
  return params.top_k > 0 || params.top_p < 1.0f || params.min_p > 0.0f;
}

}  // namespace

void SortOutput(const SamplingContext& context, std::vector<int32_t>* tokens) {
  tokens->clear();
  size_t position = context.prompt_token_count;
  const auto take = [&](size_t end) {
    for (; position < end; ++position) tokens->push_back(Value(context.tokens[position]));
  };
  for (const TokenRange& range : context.appended) {
    take(range.begin);
    position = std::max<size_t>(position, range.end);
  }
  take(context.tokens.size());
  std::sort(tokens->begin(), tokens->end());
}

void Sampler::Sample(absl::Span<const float> logits, const SamplingParams& params, const SamplingContext& context,
                     SampledToken* sampled) {
  sampled->status = absl::OkStatus();
  sampled->logprobs = TokenLogprobs();
  absl::Span<const float> adjusted = logits;
  if (NeedsAdjusting(params)) {
    Adjust(logits, params, context);
    adjusted = adjusted_;
  }
  const int32_t best = ArgMax(adjusted);
  if (best < 0) {
    sampled->status = absl::InternalError("the model's logits are not numbers");
    return;
  }
  const bool greedy = params.temperature == 0.0f || params.top_k == 1;
  sampled->token = TokenId{greedy ? best : SampleRandomly(adjusted, adjusted[best], params, context.tokens.size())};
  if (params.logprobs >= 0) FillLogprobs(logits, params.logprobs, sampled);
}

void Sampler::Adjust(absl::Span<const float> logits, const SamplingParams& params, const SamplingContext& context) {
  adjusted_.assign(logits.begin(), logits.end());
  for (const auto& [token, bias] : params.logit_bias) adjusted_[Value(token)] += bias;
  Penalise(params, context);
}

void Sampler::Penalise(const SamplingParams& params, const SamplingContext& context) {
  if (params.repetition_penalty != 1.0f) {
    seen_.clear();
    for (const TokenId token : context.tokens) seen_.push_back(Value(token));
    std::sort(seen_.begin(), seen_.end());
    seen_.erase(std::unique(seen_.begin(), seen_.end()), seen_.end());
    for (const int32_t token : seen_) {
      float& logit = adjusted_[token];
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    }
  }
  if (params.frequency_penalty != 0.0f || params.presence_penalty != 0.0f) {
    SortOutput(context, &seen_);
    for (auto it = seen_.begin(); it != seen_.end();) {
      const auto end = std::upper_bound(it, seen_.end(), *it);
      adjusted_[*it] -= params.presence_penalty + params.frequency_penalty * static_cast<float>(end - it);
      it = end;
    }
  }
}

int32_t Sampler::SampleRandomly(absl::Span<const float> logits, float largest, const SamplingParams& params,
                                uint64_t position) {
  const double uniform = UniformAt(params.seed, position);
  if (IsTruncated(params)) {
    return params.top_k > 0 ? DrawFromTopK(logits, largest, params, uniform)
                            : DrawFromNucleus(logits, largest, params, uniform);
  }
  weights_.Assign(logits, largest, params.temperature);
  return weights_.IndexAt(uniform * weights_.total());
}

int32_t Sampler::DrawFromNucleus(absl::Span<const float> logits, float largest, const SamplingParams& params,
                                 double uniform) {
  weights_.Assign(logits, largest, params.temperature, &every_weight_);
  const double total = weights_.total();
  // All that weigh less come to less than what top-p leaves out: none of them is in it. Half, for rounding.
  const double negligible = 0.5 * (1.0 - params.top_p) * total / static_cast<double>(logits.size());
  const double least = std::max<double>(params.min_p, negligible);
  order_.Clear();
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = every_weight_[i];
    if (weight >= least && weight > 0) order_.Add(logits[i], static_cast<int32_t>(i), weight);
  }
  if (order_.size() == 0) return ArgMax(logits);
  const WeightedOrder::Place last = order_.FirstAtLeast(params.top_p * total);
  const WeightedOrder::Place drawn = order_.FirstAbove(uniform * last.sum);
  // Sums of buckets may round otherwise than sums of tokens.
  const bool beyond = drawn.logit != last.logit ? drawn.logit < last.logit : drawn.token > last.token;
  return beyond ? last.token : drawn.token;
}

int32_t Sampler::DrawFromTopK(absl::Span<const float> logits, float largest, const SamplingParams& params,
                              double uniform) {
  const auto weight = [&](float logit) {
    return std::exp((static_cast<double>(logit) - largest) / static_cast<double>(params.temperature));
  };
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) candidates_.push_back({logits[i], static_cast<int32_t>(i)});
  const size_t limit = std::min<size_t>(params.top_k, candidates_.size());
  SortUpTo(limit);
  // Top-p is a share of what top-k leaves.
  double total = 0;
  for (size_t i = 0; i < limit; ++i) total += weight(candidates_[i].logit);
  double kept = 0;
  size_t count = 0;
  while (count < limit && (count == 0 || kept < params.top_p * total)) {
    // Relative to the most likely one, whose weight is 1.
    const double next = weight(candidates_[count].logit);
    if (count > 0 && (next < params.min_p || next == 0)) break;
    kept += next;
    ++count;
  }
  double sum = 0;
  for (size_t i = 0; i < count; ++i) {
    sum += weight(candidates_[i].logit);
    if (sum > uniform * kept) return candidates_[i].token;
  }
  return candidates_[0].token;
}

void Sampler::SortUpTo(size_t count) {
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  std::partial_sort(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(count), candidates_.end(),
                    likelier);
}

void Sampler::FillLogprobs(absl::Span<const float> logits, int32_t top_count, SampledToken* sampled) {
  const float largest = logits[ArgMax(logits)];
  weights_.Assign(logits, largest, /*temperature=*/1.0);
  const double log_total = largest + std::log(weights_.total());
  const auto logprob = [&](int32_t token) { return static_cast<float>(logits[token] - log_total); };
  sampled->logprobs.logprob = logprob(Value(sampled->token));
  if (top_count == 0) return;
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) candidates_.push_back({logits[i], static_cast<int32_t>(i)});
  const size_t count = std::min<size_t>(top_count, candidates_.size());
  SortUpTo(count);
  for (size_t i = 0; i < count; ++i) {
    sampled->logprobs.top.emplace_back(TokenId{candidates_[i].token}, logprob(candidates_[i].token));
  }
}

}  // namespace fermata
