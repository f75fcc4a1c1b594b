// Goal: who runs, in which order and with how many tokens, as seen from outside the engine. Method: small engines,
// stepped by hand; order is read from batches and events.

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/engine_harness.h"

namespace fermata {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using State = GenerationState;

EngineOptions Options(int max_running, int step_tokens = 2048, int block_count = 1024) {
  EngineOptions options;
  options.max_running = max_running;
  options.step_tokens = step_tokens;
  options.block_count = block_count;
  return options;
}

TEST(EngineSchedulingTest, APromptIsComputedInChunksAndSampledWithItsLastToken) {
  EngineHarness engine(Options(4, /*step_tokens=*/7));
  engine.Enqueue("g", {.prompt_tokens = 16, .max_tokens = 2});
  engine.Step();
  EXPECT_EQ(engine.BatchTokens("g"), 7);
  EXPECT_FALSE(engine.runner().rows[0].sample);
  engine.Step();
  EXPECT_EQ(engine.BatchTokens("g"), 7);
  EXPECT_EQ(engine.runner().rows[0].first_position, 7);
  engine.Step();
  EXPECT_EQ(engine.BatchTokens("g"), 2);
  EXPECT_TRUE(engine.runner().rows[0].sample);
  EXPECT_EQ(engine.Tokens("g").size(), 1u);
  engine.Step();
  EXPECT_EQ(engine.runner().rows[0].first_position, 16);
  EXPECT_EQ(engine.State("g"), State::kFinished);
}

TEST(EngineSchedulingTest, DecodesGoOnBesideALongPrefill) {
  EngineHarness engine(Options(4, /*step_tokens=*/8));
  engine.Enqueue("decoding", {.prompt_tokens = 2, .max_tokens = 50});
  engine.Step();
  engine.Enqueue("long", {.prompt_tokens = 70, .max_tokens = 2});
  for (int step = 0; step < 10; ++step) {
    engine.Step();
    EXPECT_EQ(engine.BatchTokens("decoding"), 1);
    EXPECT_EQ(engine.BatchTokens("long"), 7);
  }
  EXPECT_EQ(engine.Tokens("long").size(), 1u);
}

TEST(EngineSchedulingTest, OneSlotServesAllInOrderOfPriority) {
  EngineHarness engine(Options(1));
  const std::vector<int> priorities = {5, 1, 8, 3, 2, 7, 4, 6};
  for (const int priority : priorities) {
    engine.Enqueue("p" + std::to_string(priority), {.max_tokens = 2, .priority = priority});
  }
  engine.RunUntilIdle();
  EXPECT_THAT(engine.started(), ElementsAre("p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8"));
  EXPECT_EQ(engine.finished(), engine.started());
}

TEST(EngineSchedulingTest, UnderFcfsArrivalAloneOrders) {
  EngineOptions options = Options(1);
  options.policy = SchedulePolicy::kFcfs;
  EngineHarness engine(options);
  engine.Enqueue("first", {.priority = 9});
  engine.Enqueue("second", {.priority = 0});
  EXPECT_EQ(engine.Get("first").generation->priority, 9);
  engine.RunUntilIdle();
  EXPECT_THAT(engine.finished(), ElementsAre("first", "second"));
  EXPECT_EQ(engine.GetEngine().preemption_total, 0);
}

TEST(EngineSchedulingTest, AnUrgentOneStartsInTheNextStepAndTheVictimGoesOnWithoutRecomputing) {
  EngineHarness engine(Options(1));
  engine.Enqueue("long", {.prompt_tokens = 20, .max_tokens = 30, .priority = 10});
  engine.Step(5);
  engine.Enqueue("urgent", {.max_tokens = 3, .priority = 0});
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("urgent"));
  EXPECT_EQ(engine.State("long"), State::kPreempted);
  engine.RunUntilIdle();
  EXPECT_THAT(engine.finished(), ElementsAre("urgent", "long"));
  const GenerationInfo info = *engine.Get("long").generation;
  EXPECT_EQ(info.usage.prefilled_token_count, 20);
  EXPECT_EQ(info.usage.recomputed_token_count, 0);
  EXPECT_EQ(info.usage.output_token_count, 30);
  EXPECT_EQ(info.usage.preemption_count, 1);
}

TEST(EngineSchedulingTest, WithDisplacementNeverTheHolderFinishesFirst) {
  EngineOptions options = Options(1);
  options.displacement = Displacement::kNever;
  EngineHarness engine(options);
  engine.Enqueue("holder", {.max_tokens = 10, .priority = 3});
  engine.Step();
  engine.Enqueue("a", {.priority = 2});
  engine.Enqueue("b", {.priority = 2});
  engine.Enqueue("c", {.priority = 1});
  engine.RunUntilIdle();
  EXPECT_THAT(engine.finished(), ElementsAre("holder", "c", "a", "b"));
}

TEST(EngineSchedulingTest, TheVictimIsTheLeastUrgentNewest) {
  EngineHarness engine(Options(3));
  engine.Enqueue("old5", {.max_tokens = 50, .priority = 5});
  engine.Enqueue("new5", {.max_tokens = 50, .priority = 5});
  engine.Enqueue("p1", {.max_tokens = 50, .priority = 1});
  engine.Step();
  engine.Enqueue("p0", {.max_tokens = 5, .priority = 0});
  engine.Step();
  EXPECT_EQ(engine.State("new5"), State::kPreempted);
  EXPECT_EQ(engine.State("old5"), State::kRunning);
  EXPECT_EQ(engine.State("p1"), State::kRunning);
}

TEST(EngineSchedulingTest, SetPriorityReordersThoseThatRunAndThoseThatWait) {
  EngineHarness engine(Options(1));
  engine.Enqueue("runs", {.max_tokens = 50, .priority = 0});
  engine.Step();
  engine.Enqueue("waits", {.max_tokens = 3, .priority = 5});
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("runs"));
  engine.SetPriority("runs", 9);
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("waits"));
  engine.SetPriority("runs", 4);
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("runs"));
}

TEST(EngineSchedulingTest, AContinuedOneComesBackAtItsOwnPlace) {
  EngineHarness engine(Options(1));
  engine.Enqueue("first", {.max_tokens = 4});
  engine.Step();
  engine.Preempt("first");
  engine.Enqueue("second", {.max_tokens = 4});
  engine.Enqueue("third", {.max_tokens = 4});
  engine.Step();
  engine.Continue("first");
  engine.RunUntilIdle();
  // Equal priority does not displace "second", but "first" arrived before "third".
  EXPECT_THAT(engine.finished(), ElementsAre("second", "first", "third"));
}

TEST(EngineSchedulingTest, NobodyOvertakesOneThatWaitsForBlocksToNewOnes) {
  EngineHarness engine(Options(8, 2048, /*block_count=*/4));
  engine.Enqueue("a", {.prompt_tokens = 40, .max_tokens = 7});   // 3 blocks
  engine.Enqueue("b", {.prompt_tokens = 16, .max_tokens = 16});  // 2 blocks: has to wait
  engine.Enqueue("c", {.prompt_tokens = 4, .max_tokens = 4});    // 1 block: may not overtake b
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("a"));
  EXPECT_EQ(engine.Get("a").generation->kv_blocks.total(), 3);
  engine.RunUntilIdle();
  EXPECT_THAT(engine.started(), ElementsAre("a", "b", "c"));
  EXPECT_EQ(engine.GetEngine().device.free_count, 4);
}

TEST(EngineSchedulingTest, BlocksHeldByPausedOnesLeaveAnIdleEngineAndNoBusyLoop) {
  EngineHarness engine(Options(8, 2048, /*block_count=*/2));
  engine.Enqueue("holds", {.prompt_tokens = 16, .max_tokens = 16});
  engine.Step();
  engine.Preempt("holds");
  engine.Enqueue("waits");
  EXPECT_FALSE(engine.engine().HasWork());
  engine.Step();
  EXPECT_THAT(engine.Batch(), IsEmpty());
  engine.Abort("holds");
  EXPECT_TRUE(engine.engine().HasWork());
  engine.RunUntilIdle();
  EXPECT_EQ(engine.State("waits"), State::kFinished);
}

TEST(EngineSchedulingTest, ADisplacedOneRunsWhileAMoreUrgentOneWaitsForBlocks) {
  EngineHarness engine(Options(1, 2048, /*block_count=*/4));
  engine.Enqueue("victim", {.prompt_tokens = 40, .max_tokens = 7, .priority = 5});  // 3 blocks
  engine.Step();
  engine.Enqueue("big", {.prompt_tokens = 16, .max_tokens = 16, .priority = 0});  // 2 blocks: only 1 is free
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("victim"));
  EXPECT_EQ(engine.GetEngine().preemption_total, 0);
  engine.RunUntilIdle();
  EXPECT_THAT(engine.finished(), ElementsAre("victim", "big"));
}

TEST(EngineSchedulingTest, ABudgetSmallerThanWhatRunsGoesToTheMostUrgent) {
  EngineHarness engine(Options(4, /*step_tokens=*/2));
  for (const char* id : {"a", "b", "c"}) engine.Enqueue(id, {.prompt_tokens = 1, .max_tokens = 3});
  engine.RunUntilIdle();
  EXPECT_THAT(engine.finished(), ElementsAre("a", "b", "c"));
}

TEST(EngineSchedulingTest, AThousandAtOnceAllFinishOnce) {
  EngineHarness engine(Options(64, 512, /*block_count=*/128));
  for (int i = 0; i < 1000; ++i) engine.Enqueue("g" + std::to_string(i), {.priority = i % 5});
  engine.RunUntilIdle();
  EXPECT_EQ(engine.finished().size(), 1000u);
  EXPECT_EQ(engine.GetEngine().finished_total, 1000);
}

// The same calls must give the same reports; no container's order may depend on addresses.
TEST(EngineSchedulingTest, TheSameCallsGiveTheSameSteps) {
  std::vector<std::vector<std::string>> runs[2];
  for (auto& batches : runs) {
    EngineHarness engine(Options(3, 9, /*block_count=*/12));
    for (int i = 0; i < 12; ++i)
      engine.Enqueue("g" + std::to_string(i), {.prompt_tokens = 3 + i, .priority = i * 7 % 4});
    for (int step = 0; step < 60; ++step) {
      if (step % 9 == 4) engine.Preempt("g" + std::to_string(step % 12));
      if (step % 9 == 8) engine.Continue("g" + std::to_string((step - 4) % 12));
      engine.Step();
      batches.push_back(engine.Batch());
    }
  }
  EXPECT_EQ(runs[0], runs[1]);
}

}  // namespace
}  // namespace fermata
