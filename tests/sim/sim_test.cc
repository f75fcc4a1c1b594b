// Goal: whatever clients do, the engine keeps its promises; and the simulation notices when it does not.
// Method: the whole engine in one thread with a model that reads its KV back, under commands that a seed makes (see
// Storm). At every turn the engine's invariants are checked, an observer and an oracle of the verbs compare all that is
// reported with what must be, and every output is compared with an undisturbed run. A failure prints the command that
// replays it. Then the same with bugs planted between the engine and the watchers: each must be found.

#include <cstdint>
#include <string>

#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "tests/sim/simulator.h"

namespace fermata {
namespace {

constexpr int kSeedsPerTest = 10;
constexpr int kTests = 20;

class SimulationTest : public testing::TestWithParam<int> {};

TEST_P(SimulationTest, PromisesAreKept) {
  Observer::Totals totals;
  for (int i = 0; i < kSeedsPerTest; ++i) {
    const SimulatorOptions options = {.seed = static_cast<uint64_t>(GetParam() * kSeedsPerTest + i + 1)};
    const SimulatorResult result = Simulator(options).Run();
    ASSERT_TRUE(result.violations.empty())
        << absl::StrJoin(result.violations, "\n") << "\nreplay: " << Simulator::ReplayCommand(options);
    totals.generations += result.totals.generations;
    totals.finished += result.totals.finished;
    totals.pauses += result.totals.pauses;
    totals.displacements += result.totals.displacements;
    totals.drops += result.totals.drops;
    totals.out_of_blocks += result.totals.out_of_blocks;
  }
  // The storms did blow.
  EXPECT_GT(totals.generations, kSeedsPerTest * 30);
  EXPECT_GT(totals.finished, kSeedsPerTest * 5);
  EXPECT_GT(totals.pauses, kSeedsPerTest * 10);
  EXPECT_GT(totals.displacements, 0);
  EXPECT_GT(totals.drops + totals.out_of_blocks, 0);
}

INSTANTIATE_TEST_SUITE_P(Seeds, SimulationTest, testing::Range(0, kTests));

TEST(SimulationTest, KvMovesInPartsToo) {
  Observer::Totals totals;
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    const SimulatorResult result = Simulator({.seed = seed}).Run();
    totals.moves += result.totals.moves;
    totals.parts += result.totals.parts;
    totals.trims += result.totals.trims;
  }
  EXPECT_GT(totals.parts, 0);
  EXPECT_GT(totals.trims, 0);
  EXPECT_GT(totals.moves, totals.parts);
}

TEST(SimulationTest, ASeedReplaysToTheLastEvent) {
  const SimulatorResult first = Simulator({.seed = 12345}).Run();
  const SimulatorResult second = Simulator({.seed = 12345}).Run();
  EXPECT_EQ(first.trace_hash, second.trace_hash);
  EXPECT_EQ(first.steps, second.steps);
  EXPECT_NE(first.trace_hash, Simulator({.seed = 12346}).Run().trace_hash);
}

TEST(SimulationTest, AFailureSaysHowToReplayIt) {
  EXPECT_EQ(Simulator::ReplayCommand({.seed = 7, .steps = 90}), "tools/simulate --seed=7 --steps=90 --verbose");
}

class PlantedBugTest : public testing::TestWithParam<Bug> {};

TEST_P(PlantedBugTest, IsFoundWheneverItIsThere) {
  int planted = 0;
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    const SimulatorResult result = Simulator({.seed = seed, .bug = GetParam()}).Run();
    if (!result.bug_was_planted) continue;  // this storm gave it no occasion
    ++planted;
    EXPECT_FALSE(result.violations.empty()) << "seed " << seed;
  }
  EXPECT_GE(planted, 10);
}

INSTANTIATE_TEST_SUITE_P(All, PlantedBugTest,
                         testing::Values(Bug::kSwapBlock, Bug::kSkipPosition, Bug::kRepeatToken, Bug::kOffsetGap,
                                         Bug::kTokenAfterPause, Bug::kDropFinish, Bug::kRepeatFinish, Bug::kWrongStep,
                                         Bug::kSkipRevision, Bug::kWrongAck, Bug::kDropReply, Bug::kLoseText,
                                         Bug::kWrongDisplaced));

}  // namespace
}  // namespace fermata
