// Goal: whatever clients do, the engine keeps its promises; and the simulation notices when it does not.
// Method: the whole engine in one thread with a model that reads its KV back, under commands that a seed makes:
// duplicate, unknown, late and early verbs, readers that come and go, timeouts, a failing device, tiny pools and
// queues. An observer that sees reports alone checks every step, and every output is compared with an undisturbed run.
// A failure prints the command that replays it.

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "tests/sim/simulator.h"

namespace fermata {
namespace {

constexpr int kSeedsPerTest = 20;

class SimulationTest : public testing::TestWithParam<int> {};

TEST_P(SimulationTest, PromisesAreKept) {
  int64_t generations = 0;
  int64_t displacements = 0;
  int64_t pauses = 0;
  for (int i = 0; i < kSeedsPerTest; ++i) {
    const uint64_t seed = static_cast<uint64_t>(GetParam() * kSeedsPerTest + i + 1);
    const SimulatorResult result = Simulator({.seed = seed}).Run();
    ASSERT_TRUE(result.violations.empty())
        << absl::StrJoin(result.violations, "\n") << "\nreplay: tools/simulate --seed " << seed << " --verbose";
    generations += result.generations;
    displacements += result.displacements;
    pauses += result.pauses;
  }
  // The storms did blow.
  EXPECT_GT(generations, kSeedsPerTest * 20);
  EXPECT_GT(displacements, kSeedsPerTest);
  EXPECT_GT(pauses, kSeedsPerTest * 5);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SimulationTest, testing::Range(0, 10));

TEST(SimulationTest, ASeedReplaysToTheLastEvent) {
  const SimulatorResult first = Simulator({.seed = 12345}).Run();
  const SimulatorResult second = Simulator({.seed = 12345}).Run();
  EXPECT_EQ(first.trace_hash, second.trace_hash);
  EXPECT_EQ(first.steps, second.steps);
  EXPECT_NE(first.trace_hash, Simulator({.seed = 12346}).Run().trace_hash);
}

class PlantedBugTest : public testing::TestWithParam<Mutation> {};

TEST_P(PlantedBugTest, IsCaught) {
  int caught = 0;
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    if (!Simulator({.seed = seed, .mutation = GetParam()}).Run().violations.empty()) ++caught;
  }
  // Some storms give a bug no occasion.
  EXPECT_GE(caught, 7);
}

INSTANTIATE_TEST_SUITE_P(All, PlantedBugTest,
                         testing::Values(Mutation::kSwapBlocks, Mutation::kRepeatToken, Mutation::kTokenWhilePaused,
                                         Mutation::kDropFinish, Mutation::kRepeatFinish, Mutation::kSkipRevision,
                                         Mutation::kForgetPosition, Mutation::kWrongAck, Mutation::kLoseText));

}  // namespace
}  // namespace fermata
