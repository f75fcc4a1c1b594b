// Highway compiles this file once for each instruction set and chooses among them at run time.

#include "engine/model/logit_weights.h"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "engine/model/logit_weights.cc"
// The order matters: foreach_target.h includes this file again for each target.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace fermata {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Writes the weights of `size` logits and returns their sum.
double WeighLogits(const float* logits, size_t size, float largest, double temperature, double* weights) {
  // Four lanes whatever the machine has, so that the sum is added up in the same order.
  const hn::CappedTag<double, 4> d;
  const hn::Rebind<float, decltype(d)> floats;
  const size_t lanes = hn::Lanes(d);
  const auto from = hn::Set(d, static_cast<double>(largest));
  const auto scale = hn::Set(d, temperature);
  const auto weigh = [&](const float* at) {
    return hn::Exp(d, hn::Div(hn::Sub(hn::PromoteTo(d, hn::LoadU(floats, at)), from), scale));
  };
  auto even = hn::Zero(d);
  auto odd = hn::Zero(d);
  size_t i = 0;
  for (; i + 2 * lanes <= size; i += 2 * lanes) {
    const auto a = weigh(logits + i);
    const auto b = weigh(logits + i + lanes);
    hn::StoreU(a, d, weights + i);
    hn::StoreU(b, d, weights + i + lanes);
    even = hn::Add(even, a);
    odd = hn::Add(odd, b);
  }
  double sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
  for (; i < size; i += lanes) {
    // The rest, made up with what weighs nothing.
    float rest[4];
    double rest_weights[4];
    for (size_t lane = 0; lane < lanes; ++lane) {
      rest[lane] = i + lane < size ? logits[i + lane] : -std::numeric_limits<float>::infinity();
    }
    hn::StoreU(weigh(rest), d, rest_weights);
    for (size_t lane = 0; lane < std::min(lanes, size - i); ++lane) {
      weights[i + lane] = rest_weights[lane];
      sum += rest_weights[lane];
    }
  }
  return sum;
}

}  // namespace HWY_NAMESPACE
}  // namespace fermata
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace fermata {
namespace {

HWY_EXPORT(WeighLogits);

}  // namespace

void LogitWeights::Assign(absl::Span<const float> logits, float largest, double temperature,
                          std::vector<double>* weights) {
  logits_ = logits;
  largest_ = largest;
  temperature_ = temperature;
  total_ = 0;
  sums_.clear();
  if (weights != nullptr) weights->resize(logits.size());
  for (size_t block = 0; block * kBlock < logits.size(); ++block) {
    sums_.push_back(Weigh(block, weights != nullptr ? weights->data() + block * kBlock : block_.data()));
    total_ += sums_.back();
  }
}

double LogitWeights::Weigh(size_t block, double* weights) {
  const absl::Span<const float> logits = Block(block);
  return HWY_DYNAMIC_DISPATCH(WeighLogits)(logits.data(), logits.size(), largest_, temperature_, weights);
}

int32_t LogitWeights::IndexAt(double target) {
  double before = 0;  // the weights of the blocks before the one that is wanted
  double sum = 0;
  size_t wanted = 0;
  for (size_t block = 0; block < sums_.size() && sum <= target; ++block) {
    // Weights that round away are passed over, as those of zero are.
    if (sums_[block] == 0) continue;
    before = sum;
    wanted = block;
    sum += sums_[block];
  }
  Weigh(wanted, block_.data());
  const size_t size = Block(wanted).size();
  size_t last = 0;
  for (size_t i = 0; i < size; ++i) {
    if (block_[i] > 0) last = i;
    before += block_[i];
    if (before > target) break;
  }
  return static_cast<int32_t>(wanted * kBlock + last);
}

}  // namespace fermata

#endif  // HWY_ONCE
