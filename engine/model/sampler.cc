#include "engine/model/sampler.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "engine/model/arg_max.h"
#include "engine/model/random_stream.h"

namespace fermata {
namespace {

// How many candidates are sorted before more are: most distributions have their mass in fewer.
constexpr size_t kFirstSorted = 256;

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
  const double temperature = params.temperature;
  weights_.Assign(logits, largest, temperature);
  double total = weights_.total();
  const double uniform = UniformAt(params.seed, position);
  if (!IsTruncated(params)) return weights_.IndexAt(uniform * total);
  const auto weight = [&](float logit) { return std::exp((static_cast<double>(logit) - largest) / temperature); };
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); ++i) candidates_.push_back({logits[i], static_cast<int32_t>(i)});
  const size_t kept = Truncate(params, largest, total);
  total = 0;
  for (size_t i = 0; i < kept; ++i) total += weight(candidates_[i].logit);
  double sum = 0;
  for (size_t i = 0; i < kept; ++i) {
    sum += weight(candidates_[i].logit);
    if (sum > uniform * total) return candidates_[i].token;
  }
  return candidates_[0].token;
}

void Sampler::SortUpTo(size_t sorted, size_t count) {
  std::partial_sort(candidates_.begin() + sorted, candidates_.begin() + count, candidates_.end(),
                    [](const Candidate& a, const Candidate& b) {
                      return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
                    });
}

size_t Sampler::Truncate(const SamplingParams& params, float largest, double total) {
  const size_t size = candidates_.size();
  size_t limit = params.top_k > 0 ? std::min<size_t>(params.top_k, size) : size;
  size_t sorted = 0;
  if (params.top_k > 0) {
    // Top-p is a share of what top-k leaves.
    SortUpTo(0, limit);
    sorted = limit;
    total = 0;
    for (size_t i = 0; i < limit; ++i) {
      total += std::exp((static_cast<double>(candidates_[i].logit) - largest) / params.temperature);
    }
  }
  double sum = 0;
  for (size_t i = 0; i < limit; ++i) {
    if (i == sorted) {
      const size_t next = std::min(limit, std::max(kFirstSorted, 2 * sorted));
      SortUpTo(sorted, next);
      sorted = next;
    }
    // Relative to the most likely one, whose weight is 1.
    const double weight = std::exp((static_cast<double>(candidates_[i].logit) - largest) / params.temperature);
    if (weight < params.min_p || weight == 0) return std::max<size_t>(i, 1);
    sum += weight;
    if (sum >= params.top_p * total) return i + 1;
  }
  return limit;
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
  SortUpTo(0, count);
  for (size_t i = 0; i < count; ++i) {
    sampled->logprobs.top.emplace_back(TokenId{candidates_[i].token}, logprob(candidates_[i].token));
  }
}

}  // namespace fermata
