#include "engine/model/weighted_order.h"

#include <algorithm>
#include <cmath>

namespace fermata {
namespace {

constexpr int kBuckets = 2048;

// Fewer are sorted.
constexpr size_t kFew = 64;

}  // namespace

bool WeightedOrder::Narrow(const std::vector<Item>& from, double target, bool more, double* before) {
  float largest = from[0].logit;
  float smallest = largest;
  for (const Item& item : from) {
    largest = std::max(largest, item.logit);
    smallest = std::min(smallest, item.logit);
  }
  const float scale = (kBuckets - 1) / (largest - smallest);
  // All alike, or so far apart or so near that a float cannot tell buckets.
  if (!std::isfinite(scale) || scale == 0.0f) return false;
  // Rounding keeps the order: a larger logit is never in a later bucket.
  const auto bucket_of = [&](float logit) {
    return std::min(kBuckets - 1, static_cast<int>((largest - logit) * scale));
  };
  sums_.assign(kBuckets, 0.0);
  for (const Item& item : from) sums_[bucket_of(item.logit)] += item.weight;
  int bucket = 0;
  double sum = 0;
  double sum_before = 0;
  for (int i = 0; i < kBuckets; ++i) {
    if (sums_[i] == 0) continue;
    bucket = i;
    sum_before = sum;
    sum += sums_[i];
    if (more ? *before + sum > target : *before + sum >= target) break;
  }
  const size_t size = from.size();
  size_t count = 0;
  if (&from != &near_) near_.resize(size);
  for (size_t i = 0; i < size; ++i) {
    if (bucket_of(from[i].logit) == bucket) near_[count++] = from[i];
  }
  near_.resize(count);
  *before += sum_before;
  return count < size;
}

WeightedOrder::Place WeightedOrder::Find(double target, bool more) {
  double before = 0;
  bool narrower = items_.size() > kFew && Narrow(items_, target, more, &before);
  if (!narrower) near_ = items_;
  while (narrower && near_.size() > kFew) narrower = Narrow(near_, target, more, &before);
  const auto likelier = [](const Item& a, const Item& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  // Those that are all alike are in order already.
  if (!std::is_sorted(near_.begin(), near_.end(), likelier)) std::sort(near_.begin(), near_.end(), likelier);
  for (const Item& item : near_) {
    before += item.weight;
    if (more ? before > target : before >= target) return {item.logit, item.token, before};
  }
  return {near_.back().logit, near_.back().token, before};
}

}  // namespace fermata
