// Goal: blocks are taken when they are needed, and where they run out the right one gives way, no more than needed, and
// the head goes on. Method: small pools, steps and moves by hand; one scenario for each rule.

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/engine_harness.h"

namespace fermata {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using State = GenerationState;

// Blocks of 4 tokens; neither host nor disk.
EngineOptions Small(int32_t block_count, bool allow_recompute = false, int32_t host_blocks = 0) {
  EngineOptions options;
  options.block_tokens = 4;
  options.block_count = block_count;
  options.host_block_count = host_blocks;
  options.allow_recompute = allow_recompute;
  return options;
}

int64_t Held(EngineHarness& engine, const std::string& id) { return engine.Get(id).generation->kv_blocks.device; }

TEST(BlocksOnDemandTest, OneThatRunsTakesABlockWhenItsNextTokenHasNoRoom) {
  EngineHarness engine(Small(8));
  engine.Enqueue("a", {.prompt_tokens = 4, .max_tokens = 20});
  std::vector<int64_t> held;
  for (int step = 0; step < 10; ++step) {
    engine.Step();
    held.push_back(Held(engine, "a"));
  }
  // The prompt and one token are admitted; the step that computes the ninth token is the sixth.
  EXPECT_THAT(held, ElementsAre(2, 2, 2, 2, 2, 3, 3, 3, 3, 4));
}

TEST(BlocksOnDemandTest, WhatWouldHaveBeenReservedServesOthers) {
  EngineHarness engine(Small(4));
  // Each may need three blocks, and ends before that.
  for (const char* id : {"a", "b"}) {
    engine.Enqueue(id, {.prompt_tokens = 4, .max_tokens = 8});
    engine.Script(id, "x", /*end=*/true);
  }
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("a", "b"));
}

TEST(BlocksOnDemandTest, TooMuchForTheWholePoolIsRefusedAtOnce) {
  EngineHarness engine(Small(4));
  EXPECT_EQ(engine.Enqueue("a", {.prompt_tokens = 4, .max_tokens = 13}).status.code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(engine.Enqueue("b", {.prompt_tokens = 4, .max_tokens = 12}).status.ok());
}

// Two that fill the pool of four, and need more at the same time.
void FillWithTwo(EngineHarness& engine, int newer_priority = 0) {
  engine.Enqueue("old", {.prompt_tokens = 4, .max_tokens = 8});
  engine.Enqueue("new", {.prompt_tokens = 4, .max_tokens = 8, .priority = newer_priority});
  engine.Step(5);
  ASSERT_EQ(engine.GetEngine().device.free_count, 0);
}

TEST(BlocksOnDemandTest, WithoutTiersTheNewestEndsWithAnErrorThatNamesThePoolAndTheFlags) {
  EngineHarness engine(Small(4));
  FillWithTwo(engine);
  engine.RunUntilIdle();
  const GenerationInfo lost = *engine.Get("new").generation;
  EXPECT_EQ(lost.finish_reason, FinishReason::kError);
  EXPECT_THAT(lost.error_message,
              AllOf(HasSubstr("--kv_bytes"), HasSubstr("--kv_host_bytes"), HasSubstr("--allow_recompute")));
  EXPECT_EQ(engine.Get("old").generation->finish_reason, FinishReason::kLength);
  EXPECT_EQ(engine.GetEngine().recomputed_token_total, 0);
}

TEST(BlocksOnDemandTest, WithRecomputeTheNewestIsDroppedAndComputedAgain) {
  EngineHarness engine(Small(4, /*allow_recompute=*/true));
  FillWithTwo(engine);
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("old"));
  EXPECT_EQ(engine.State("new"), State::kPreempted);
  EXPECT_EQ(engine.Get("new").generation->kv_tier, KvTier::kNone);
  ASSERT_EQ(engine.moved().size(), 1u);
  EXPECT_EQ(engine.moved()[0].from, KvTier::kDevice);
  EXPECT_EQ(engine.moved()[0].to, KvTier::kNone);
  engine.RunUntilIdle();
  EXPECT_THAT(engine.finished(), ElementsAre("old", "new"));
  const Usage usage = engine.Get("new").generation->usage;
  EXPECT_EQ(usage.output_token_count, 8);
  EXPECT_EQ(usage.prefilled_token_count, 4) << "once; the second time it is recomputed";
  EXPECT_EQ(usage.recomputed_token_count, 8);
  EXPECT_EQ(engine.GetEngine().recomputed_token_total, 8);
}

TEST(BlocksOnDemandTest, WithAHostTheNewestGoesThereAndComesBackForItsBlocksAndOneTokenMore) {
  EngineHarness engine(Small(4, /*allow_recompute=*/true, /*host_blocks=*/8));
  FillWithTwo(engine);
  engine.Boundary();
  EXPECT_THAT(engine.Moves(), ElementsAre("new DEVICE>HOST 2"));
  EXPECT_EQ(engine.State("old"), State::kRunning) << "it keeps its slot";
  EXPECT_FALSE(engine.engine().HasWork()) << "until the copy is done";
  engine.FinishMove();
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("old"));
  EXPECT_THAT(engine.Moves(), IsEmpty()) << "three blocks are needed, and one is free";
  engine.RunUntilIdle();
  engine.Boundary();
  EXPECT_THAT(engine.Moves(), ElementsAre("new HOST>DEVICE 2"));
  engine.FinishMove();
  engine.RunUntilIdle();
  EXPECT_EQ(engine.Get("new").generation->usage.recomputed_token_count, 0);
  EXPECT_EQ(engine.Get("new").generation->usage.output_token_count, 8);
}

TEST(BlocksOnDemandTest, PausedKvMakesRoomBeforeAnybodyThatRunsAndIsNeverDropped) {
  EngineHarness engine(Small(4, /*allow_recompute=*/true, /*host_blocks=*/8));
  engine.Enqueue("paused", {.prompt_tokens = 4, .max_tokens = 8});
  engine.Step();
  engine.Preempt("paused");
  engine.Enqueue("runs", {.prompt_tokens = 4, .max_tokens = 8});
  engine.Step(5);
  engine.Boundary();
  EXPECT_THAT(engine.Moves(), ElementsAre("paused DEVICE>HOST 1"));
  engine.FinishMoves();
  engine.RunUntilIdle();
  EXPECT_THAT(engine.finished(), ElementsAre("runs"));
}

TEST(BlocksOnDemandTest, WhereAllElseIsPausedAndHasNowhereToGoTheOneThatRunsWaits) {
  for (const bool allow_recompute : {false, true}) {
    EngineHarness engine(Small(4, allow_recompute));
    engine.Enqueue("paused", {.prompt_tokens = 4, .max_tokens = 8});
    engine.Step();
    engine.Preempt("paused");
    engine.Enqueue("runs", {.prompt_tokens = 4, .max_tokens = 8});
    engine.RunUntilIdle();
    EXPECT_THAT(engine.finished(), IsEmpty());
    EXPECT_THAT(engine.moved(), IsEmpty());
    engine.Abort("paused");
    engine.RunUntilIdle();
    EXPECT_EQ(engine.Get("runs").generation->finish_reason, FinishReason::kLength);
    EXPECT_EQ(engine.GetEngine().recomputed_token_total, 0);
  }
}

TEST(BlocksOnDemandTest, TheLeastUrgentGivesWayNotTheNewest) {
  EngineHarness engine(Small(4, /*allow_recompute=*/true));
  FillWithTwo(engine, /*newer_priority=*/-1);
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("new"));
  EXPECT_EQ(engine.State("old"), State::kPreempted);
}

TEST(BlocksOnDemandTest, TheSmallestSetIsDisplacedForANewcomer) {
  EngineHarness engine(Small(8, /*allow_recompute=*/true));
  engine.Enqueue("three", {.prompt_tokens = 9, .max_tokens = 3, .priority = 5});
  engine.Enqueue("two", {.prompt_tokens = 5, .max_tokens = 3, .priority = 5});
  engine.Enqueue("one", {.prompt_tokens = 2, .max_tokens = 2, .priority = 5});
  engine.Step();
  ASSERT_EQ(engine.GetEngine().device.free_count, 2);
  // It lacks three blocks: "one" and "two" would do, as the walk meets them.
  engine.Enqueue("urgent", {.prompt_tokens = 17, .max_tokens = 3});
  EXPECT_EQ(engine.State("three"), State::kRunning);
  EXPECT_EQ(engine.State("two"), State::kPreempted);
  EXPECT_EQ(engine.State("one"), State::kPreempted);
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("urgent", "three"));
}

TEST(BlocksOnDemandTest, WhomTheRestCanDoWithoutIsSpared) {
  EngineHarness engine(Small(8, /*allow_recompute=*/true));
  engine.Enqueue("a", {.prompt_tokens = 9, .max_tokens = 3, .priority = 5});   // 3 blocks
  engine.Enqueue("b", {.prompt_tokens = 13, .max_tokens = 3, .priority = 5});  // 4 blocks
  engine.Enqueue("c", {.prompt_tokens = 2, .max_tokens = 2, .priority = 5});   // 1 block
  engine.Step();
  // It lacks four: the walk takes "c", which is newest, and "b". The rest can do without "c" alone.
  engine.Enqueue("urgent", {.prompt_tokens = 13, .max_tokens = 3});
  EXPECT_EQ(engine.State("a"), State::kRunning);
  EXPECT_EQ(engine.State("b"), State::kPreempted);
  EXPECT_EQ(engine.State("c"), State::kRunning);
}

TEST(BlocksOnDemandTest, IfAllThatAreLessUrgentWouldNotSufficeNobodyIsTouched) {
  EngineHarness engine(Small(8, /*allow_recompute=*/true));
  engine.Enqueue("same", {.prompt_tokens = 17, .max_tokens = 3});
  engine.Enqueue("less", {.prompt_tokens = 5, .max_tokens = 3, .priority = 5});
  engine.Step();
  engine.Enqueue("urgent", {.prompt_tokens = 13, .max_tokens = 3});
  EXPECT_EQ(engine.State("same"), State::kRunning);
  EXPECT_EQ(engine.State("less"), State::kRunning);
  engine.RunUntilIdle();
  EXPECT_EQ(engine.GetEngine().preemption_total, 0);
}

TEST(BlocksOnDemandTest, AClassAtItsCapIsNeverBeyondItAndGivesWayAmongItsOwn) {
  for (const bool allow_recompute : {false, true}) {
    EngineOptions options = Small(40, allow_recompute);
    options.classes = {{.name = "batch", .max_kv_blocks = 4}};
    EngineHarness engine(options);
    std::vector<Command> commands;
    for (const char* id : {"old", "new", "other"}) {
      EnqueueCommand command;
      command.id = IdOf(id);
      command.spec.prompt.assign(4, TokenId{'p'});
      command.spec.sampling.max_tokens = id[1] == 't' ? 60 : 8;
      if (id[1] != 't') command.spec.traffic_class = "batch";
      commands.push_back(command);
    }
    engine.Boundary(commands);
    for (int step = 0; step < 40; ++step) {
      engine.Step();
      EXPECT_LE(Held(engine, "old") + Held(engine, "new"), 4);
      EXPECT_GE(engine.BatchTokens("other"), 1) << "the others are not kept back";
    }
    EXPECT_EQ(engine.Get("old").generation->finish_reason, FinishReason::kLength);
    const GenerationInfo last = *engine.Get("new").generation;
    EXPECT_EQ(last.finish_reason, allow_recompute ? FinishReason::kLength : FinishReason::kError);
    if (!allow_recompute) {
      EXPECT_THAT(last.error_message, HasSubstr("--class=batch"));
    }
  }
}

TEST(BlocksOnDemandTest, OneThatIsAppendedToWaitsForTheBlocksThatItLacks) {
  EngineHarness engine(Small(4));
  engine.Enqueue("talks", {.prompt_tokens = 3, .max_tokens = 2});
  engine.Step();
  engine.Preempt("talks");
  engine.Enqueue("runs", {.prompt_tokens = 9, .max_tokens = 3});
  engine.Step();
  engine.Boundary({ContinueCommand{.ids = {IdOf("talks")}, .append = {TokenId{'q'}, TokenId{'q'}, TokenId{'q'}}}});
  engine.Step();
  EXPECT_EQ(engine.State("talks"), State::kPreempted);
  engine.RunUntilIdle();
  EXPECT_THAT(engine.finished(), ElementsAre("runs", "talks"));
}

TEST(BlocksOnDemandTest, ANewcomerNeedsFewerBlocksByThoseThatItSharesWithOneThatHoldsThem) {
  EngineOptions options = Small(6);
  options.prefix_sharing = PrefixSharing::kAll;
  EngineHarness engine(options);
  engine.Enqueue("first", {.prompt_tokens = 17, .max_tokens = 3});
  engine.Step();
  engine.Enqueue("second", {.prompt_tokens = 17, .max_tokens = 3});  // five blocks, four of them the first one's
  engine.Step();
  EXPECT_EQ(engine.State("second"), State::kRunning);
  EXPECT_EQ(engine.Get("second").generation->usage.cached_token_count, 16);
}

}  // namespace
}  // namespace fermata
