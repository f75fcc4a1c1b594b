// Goal: GetEngine's speeds are those of the last seconds. Method: steps at given times, no clock.

#include "engine/runtime/engine_stats.h"

#include "gtest/gtest.h"

namespace fermata {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1000);

TEST(EngineStatsTest, BeforeTheFirstStepThereIsNoSpeed) {
  const EngineStats stats;
  EXPECT_EQ(stats.Get(kStart).step_duration, absl::ZeroDuration());
  EXPECT_EQ(stats.Get(kStart).tokens_per_second, 0);
}

TEST(EngineStatsTest, TokensOfTheLastSecondsCount) {
  EngineStats stats;
  for (int i = 0; i < 10000; ++i) stats.AddStep(kStart + i * absl::Milliseconds(1), absl::Milliseconds(1), 2);
  EXPECT_NEAR(stats.Get(kStart + absl::Seconds(10)).tokens_per_second, 2000, 50);
}

TEST(EngineStatsTest, IdleEngineComesDownToZero) {
  EngineStats stats;
  stats.AddStep(kStart, absl::Milliseconds(1), 1000);
  EXPECT_GT(stats.Get(kStart).tokens_per_second, 0);
  EXPECT_EQ(stats.Get(kStart + EngineStats::kWindow + absl::Milliseconds(1)).tokens_per_second, 0);
}

TEST(EngineStatsTest, StepTimeFollowsTheLastSteps) {
  EngineStats stats;
  stats.AddStep(kStart, absl::Milliseconds(10), 1);
  EXPECT_EQ(stats.Get(kStart).step_duration, absl::Milliseconds(10));
  for (int i = 0; i < 500; ++i) stats.AddStep(kStart + absl::Seconds(i), absl::Milliseconds(20), 1);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(stats.Get(kStart).step_duration), 20, 0.01);
}

}  // namespace
}  // namespace fermata
