// Method: against std::exp and plain sums, over lengths around the blocks and lanes that it works in, and temperatures
// from those that leave one token to those that leave all.

#include "engine/model/logit_weights.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace fermata {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<float> Logits(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 4.0f);
  std::vector<float> logits(size);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

float LargestOf(const std::vector<float>& logits) { return *std::max_element(logits.begin(), logits.end()); }

std::vector<double> PlainWeights(const std::vector<float>& logits, double temperature) {
  const double largest = LargestOf(logits);
  std::vector<double> weights;
  for (const float logit : logits) weights.push_back(std::exp((logit - largest) / temperature));
  return weights;
}

TEST(LogitWeightsTest, TotalIsThatOfPlainExponentials) {
  LogitWeights weights;
  for (const size_t size : {1, 3, 4, 7, 8, 9, 1023, 1024, 1025, 5000, 49152}) {
    for (const double temperature : {0.01, 0.7, 1.0, 5.0, 1000.0}) {
      const std::vector<float> logits = Logits(size, static_cast<uint32_t>(size));
      double total = 0;
      for (const double weight : PlainWeights(logits, temperature)) total += weight;
      weights.Assign(logits, LargestOf(logits), temperature);
      EXPECT_NEAR(weights.total(), total, 1e-13 * total) << size << " at " << temperature;
      EXPECT_GE(weights.total(), 1.0);
    }
  }
}

TEST(LogitWeightsTest, IndexIsWhereThePlainSumPassesTheTarget) {
  LogitWeights weights;
  std::mt19937_64 random(5);
  std::uniform_real_distribution<double> uniform(0, 1);
  for (const size_t size : {1, 5, 1024, 1030, 4099}) {
    const std::vector<float> logits = Logits(size, static_cast<uint32_t>(size) + 1);
    const std::vector<double> plain = PlainWeights(logits, 0.9);
    weights.Assign(logits, LargestOf(logits), 0.9);
    for (int round = 0; round < 300; ++round) {
      const double target = uniform(random) * weights.total();
      const int32_t index = weights.IndexAt(target);
      double before = 0;
      for (int32_t i = 0; i < index; ++i) before += plain[i];
      // But for the rounding of sums.
      EXPECT_LE(before, target + 1e-12 * weights.total());
      EXPECT_GE(before + plain[index], target - 1e-12 * weights.total());
    }
  }
}

TEST(LogitWeightsTest, WhatWeighsNothingIsNeverChosen) {
  LogitWeights weights;
  for (const size_t chosen : {0, 1, 1023, 1024, 2500, 2999}) {
    std::vector<float> logits(3000, -kInfinity);
    logits[chosen] = -7.5f;
    weights.Assign(logits, -7.5f, 0.3);
    EXPECT_EQ(weights.total(), 1.0);
    for (const double target : {0.0, 0.5, 1.0}) EXPECT_EQ(weights.IndexAt(target), static_cast<int32_t>(chosen));
  }
}

TEST(LogitWeightsTest, TheEndsAreTheFirstAndTheLastWithAWeight) {
  std::vector<float> logits(2048, -kInfinity);
  logits[3] = logits[1500] = logits[2040] = 1.0f;
  LogitWeights weights;
  weights.Assign(logits, 1.0f, 1.0);
  EXPECT_EQ(weights.total(), 3.0);
  EXPECT_EQ(weights.IndexAt(0), 3);
  EXPECT_EQ(weights.IndexAt(1), 1500);  // more than the target, not as much
  EXPECT_EQ(weights.IndexAt(2.5), 2040);
  EXPECT_EQ(weights.IndexAt(3.0), 2040);
}

}  // namespace
}  // namespace fermata
