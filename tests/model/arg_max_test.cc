// Method: against one plain loop, over sizes around the blocks and lanes that it works in, with ties and with values
// that are no numbers at every place.

#include "engine/model/arg_max.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace fermata {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

int32_t PlainArgMax(const std::vector<float>& values) {
  int32_t best = -1;
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(values[i])) return -1;
    if (values[i] == -kInfinity) continue;
    if (best < 0 || values[i] > values[best]) best = static_cast<int32_t>(i);
  }
  return best < 0 || std::isinf(values[best]) ? -1 : best;
}

TEST(ArgMaxTest, IsThatOfAPlainLoopForEverySize) {
  std::mt19937 random(1);
  for (const size_t size : {1, 2, 15, 16, 17, 31, 33, 1023, 1024, 1025, 2048, 3000, 49152}) {
    for (int round = 0; round < 20; ++round) {
      std::vector<float> values(size);
      // Few different ones, so that many are equal.
      for (float& value : values) value = static_cast<float>(static_cast<int>(random() % 2000) - 1500) / 8;
      EXPECT_EQ(ArgMax(values), PlainArgMax(values)) << size;
    }
  }
}

TEST(ArgMaxTest, TheLowestOfEqualsWinsAcrossBlocks) {
  std::vector<float> values(5000, -1.0f);
  for (const size_t at : {4999, 4096, 2050, 1024, 700, 17, 3, 0}) {
    values[at] = 2.0f;
    EXPECT_EQ(ArgMax(values), static_cast<int32_t>(at));
  }
}

TEST(ArgMaxTest, NanIsSeenAtEveryPlace) {
  for (const size_t size : {5, 16, 1030, 2077}) {
    for (size_t at = 0; at < size; ++at) {
      std::vector<float> values(size, 1.0f);
      values[at] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_EQ(ArgMax(values), -1) << at << " of " << size;
    }
  }
}

TEST(ArgMaxTest, InfinitiesAreNoChoice) {
  std::vector<float> values(2000, -kInfinity);
  EXPECT_EQ(ArgMax(values), -1);
  values[1500] = -1e30f;
  EXPECT_EQ(ArgMax(values), 1500);
  values[1999] = kInfinity;
  EXPECT_EQ(ArgMax(values), -1);
  EXPECT_EQ(ArgMax({}), -1);
}

}  // namespace
}  // namespace fermata
