// Goal: the token that is found is the one that sorting all of them would find. Method: rows of logits of many kinds
// (flat, all alike, with ties, steep, tiny and huge differences), targets over the whole sum, against a sorted copy.

#include "engine/model/weighted_order.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace fermata {
namespace {

struct Token {
  float logit;
  int32_t token;
  double weight;
};

// Weights are multiples of 2^-40, so that sums are the same in any order.
std::vector<Token> Weighed(const std::vector<float>& logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<Token> tokens;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double weight = std::ldexp(std::ceil(std::ldexp(std::exp(logits[i] - largest), 40)), -40);
    if (weight > 0) tokens.push_back({logits[i], static_cast<int32_t>(i), weight});
  }
  return tokens;
}

void ExpectAsSorted(const std::vector<float>& logits, const std::string& what) {
  const std::vector<Token> tokens = Weighed(logits);
  WeightedOrder order;
  for (const Token& token : tokens) order.Add(token.logit, token.token, token.weight);
  std::vector<Token> sorted = tokens;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Token& a, const Token& b) { return a.logit > b.logit; });
  double total = 0;
  for (const Token& token : tokens) total += token.weight;
  for (int step = 0; step <= 64; ++step) {
    const double target = total * step / 64;
    for (const bool more : {false, true}) {
      double sum = 0;
      size_t at = 0;
      for (; at < sorted.size(); ++at) {
        sum += sorted[at].weight;
        if (more ? sum > target : sum >= target) break;
      }
      at = std::min(at, sorted.size() - 1);
      const WeightedOrder::Place place = more ? order.FirstAbove(target) : order.FirstAtLeast(target);
      ASSERT_EQ(place.token, sorted[at].token) << what << ", " << logits.size() << " tokens, target " << step;
      EXPECT_EQ(place.logit, sorted[at].logit);
      EXPECT_EQ(place.sum, sum);
    }
  }
}

TEST(WeightedOrderTest, FindsWhatSortingFinds) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const std::pair<const char*, std::function<float(int)>> rows[] = {
      {"flat", [&](int) { return 0.01f * normal(random); }},
      {"as a model's", [&](int) { return 3.0f * normal(random); }},
      {"steep", [&](int) { return 100.0f * normal(random); }},
      {"alike", [](int) { return -2.5f; }},
      {"of few values", [&](int) { return static_cast<float>(random() % 5); }},
      {"of two values beside each other", [](int i) { return i % 3 == 0 ? 1.0f : std::nextafter(1.0f, 2.0f); }},
      {"falling", [](int i) { return -static_cast<float>(i) / 1000; }},
      {"rising", [](int i) { return static_cast<float>(i) / 1000; }},
      {"with one far away", [&](int i) { return i == 7 ? 20.0f : 0.001f * normal(random); }},
      {"too near for buckets", [](int i) { return static_cast<float>(i % 7) * 1e-44f; }},
  };
  for (const auto& [what, logit] : rows) {
    for (const int size : {1, 2, 64, 65, 1000, 5000}) {
      std::vector<float> logits;
      for (int i = 0; i < size; ++i) logits.push_back(logit(i));
      ExpectAsSorted(logits, what);
    }
  }
}

TEST(WeightedOrderTest, BeyondAllIsTheLast) {
  WeightedOrder order;
  for (int i = 0; i < 100; ++i) order.Add(static_cast<float>(i % 10), i, 1.0);
  EXPECT_EQ(order.FirstAtLeast(101).token, 90);
  EXPECT_EQ(order.FirstAbove(100).token, 90);
  EXPECT_EQ(order.FirstAbove(100).sum, 100);
  order.Clear();
  order.Add(1.0f, 5, 0.25);
  EXPECT_EQ(order.FirstAbove(0).token, 5);
}

}  // namespace
}  // namespace fermata
