// Goal: KV leaves the device only for somebody who needs the room, the right one goes, nobody goes in vain, and who
// comes back goes on where it was. Method: small pools, moves that are finished by hand.

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/engine_harness.h"

namespace fermata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using State = GenerationState;

// A pool of 4 blocks of 4 tokens. A Job of 4 + 4 tokens takes two.
EngineOptions Small(int32_t host_blocks, int64_t disk_blocks = 0) {
  EngineOptions options;
  options.block_tokens = 4;
  options.block_count = 4;
  options.host_block_count = host_blocks;
  options.disk_block_count = disk_blocks;
  return options;
}

constexpr Job kTwoBlocks = {.prompt_tokens = 4, .max_tokens = 4};

// Runs until it has two tokens, then pauses it.
void RunAndPause(EngineHarness& engine, const std::string& id, int priority = 0) {
  engine.Enqueue(id, {.prompt_tokens = 4, .max_tokens = 4, .priority = priority});
  engine.Step(2);
  ASSERT_TRUE(engine.Preempt(id).status.ok());
}

TEST(KvLadderTest, WithoutNeedPausedKvStaysWhereItIs) {
  EngineHarness engine(Small(8));
  RunAndPause(engine, "a");
  RunAndPause(engine, "b");
  EXPECT_THAT(engine.Moves(), IsEmpty());
  EXPECT_EQ(engine.Get("a").generation->kv_tier, KvTier::kDevice);
}

TEST(KvLadderTest, TheLeastRecentlyPausedMakesRoomAndNoMoreThanIsNeeded) {
  EngineHarness engine(Small(8));
  RunAndPause(engine, "a");
  RunAndPause(engine, "b");
  // Continued and paused again: now "b" rests longest.
  engine.Continue("a");
  engine.Step();
  engine.Preempt("a");
  engine.Enqueue("c", kTwoBlocks);
  EXPECT_THAT(engine.Moves(), ElementsAre("b DEVICE>HOST 2"));
  EXPECT_FALSE(engine.engine().HasWork()) << "its room is not free before the copy is done";
  EXPECT_EQ(engine.Get("b").generation->kv_tier, KvTier::kDevice) << "while it moves it is where it was";
  engine.FinishMove();
  EXPECT_EQ(engine.Get("b").generation->kv_tier, KvTier::kHost);
  EXPECT_EQ(engine.Get("b").generation->kv_blocks.host, 2);
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("c"));
  EXPECT_EQ(engine.moved().back().block_count, 2);
}

TEST(KvLadderTest, WhoComesBackGoesOnWithoutComputingAnythingAgain) {
  EngineHarness engine(Small(8));
  RunAndPause(engine, "a");
  RunAndPause(engine, "b");
  engine.Enqueue("c", {.prompt_tokens = 4, .max_tokens = 2});
  engine.FinishMoves();
  engine.RunUntilIdle();
  engine.Continue("a");
  EXPECT_EQ(engine.State("a"), State::kPreempted);
  EXPECT_THAT(engine.Moves(), ElementsAre("a HOST>DEVICE 2"));
  EXPECT_FALSE(engine.engine().HasWork());
  engine.FinishMove();
  engine.Step();
  EXPECT_EQ(engine.BatchTokens("a"), 1);
  EXPECT_EQ(engine.runner().rows.at(0).first_position, 5);
  engine.RunUntilIdle();
  const Usage usage = engine.Get("a").generation->usage;
  EXPECT_EQ(usage.prefilled_token_count, 4);
  EXPECT_EQ(usage.recomputed_token_count, 0);
  EXPECT_EQ(usage.output_token_count, 4);
}

TEST(KvLadderTest, OthersGoOnWhileSomebodyComesBack) {
  EngineHarness engine(Small(8));
  RunAndPause(engine, "a");
  engine.Preempt("a", "", KvTier::kHost);
  engine.FinishMoves();
  engine.Enqueue("b", {.prompt_tokens = 4, .max_tokens = 4, .priority = 5});
  engine.Step();
  engine.Continue("a");
  for (int i = 0; i < 2; ++i) {
    engine.Step();
    EXPECT_THAT(engine.Batch(), ElementsAre("b"));
  }
  engine.FinishMove();
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("a", "b"));
}

TEST(KvLadderTest, IfItWouldNotSufficeNobodyIsTouched) {
  EngineHarness engine(Small(/*host_blocks=*/1));
  RunAndPause(engine, "a");
  RunAndPause(engine, "b");
  engine.Enqueue("c", kTwoBlocks);
  EXPECT_THAT(engine.Moves(), IsEmpty()) << "two blocks have no room in the host";
  EXPECT_FALSE(engine.engine().HasWork());
  engine.Continue("a");
  engine.RunUntilIdle();
  EXPECT_THAT(engine.finished(), ElementsAre("a", "c"));
}

TEST(KvLadderTest, WhoWaitsBehindItGivesWayBeforeWhoRuns) {
  EngineOptions options = Small(8);
  options.max_running = 2;
  EngineHarness engine(options);
  engine.Enqueue("low", {.prompt_tokens = 4, .max_tokens = 4, .priority = 9});
  engine.Enqueue("mid", {.prompt_tokens = 4, .max_tokens = 4, .priority = 5});
  engine.Step();
  // Takes a slot and two blocks: "low" is displaced for both.
  engine.Enqueue("high", {.prompt_tokens = 4, .max_tokens = 4, .priority = 0});
  EXPECT_EQ(engine.State("low"), State::kPreempted);
  EXPECT_THAT(engine.Moves(), ElementsAre("low DEVICE>HOST 1"));
  engine.FinishMove();
  engine.Step();
  EXPECT_THAT(engine.Batch(), UnorderedElementsAre("high", "mid"));
  engine.RunUntilIdle();
  EXPECT_THAT(engine.Moves(), ElementsAre("low HOST>DEVICE 1"));
  engine.FinishMove();
  engine.RunUntilIdle();
  EXPECT_THAT(engine.finished(), ElementsAre("mid", "high", "low"));
  EXPECT_EQ(engine.Get("low").generation->usage.recomputed_token_count, 0);
}

TEST(KvLadderTest, EqualPriorityIsNotDisplacedForBlocks) {
  EngineHarness engine(Small(8));
  engine.Enqueue("a", kTwoBlocks);
  engine.Enqueue("b", kTwoBlocks);
  engine.Step();
  engine.Enqueue("c", kTwoBlocks);
  EXPECT_THAT(engine.Moves(), IsEmpty());
  EXPECT_EQ(engine.State("b"), State::kRunning);
}

TEST(KvLadderTest, NobodyIsDisplacedForBlocksWhereThatIsOff) {
  EngineOptions options = Small(8);
  options.displacement = Displacement::kNever;
  EngineHarness engine(options);
  engine.Enqueue("a", {.prompt_tokens = 8, .max_tokens = 8, .priority = 9});
  engine.Step();
  engine.Enqueue("b", kTwoBlocks);
  EXPECT_THAT(engine.Moves(), IsEmpty());
  EXPECT_EQ(engine.State("a"), State::kRunning);
}

TEST(KvLadderTest, ForBlocksToAClassKeepsTheSlotsThatItHasReserved) {
  EngineOptions options = Small(8);
  options.classes = {{.name = "kept", .reserved = 1}};
  EngineHarness engine(options);
  EnqueueCommand command;
  command.body_digest = "body";
  command.spec.traffic_class = "kept";
  command.spec.priority = 5;
  command.spec.prompt.assign(4, TokenId{'p'});
  command.spec.sampling.max_tokens = 4;
  for (const std::string id : {"a", "b"}) {
    command.id = IdOf(id);
    engine.Boundary({command});
  }
  engine.Step();
  // Would need the blocks of both.
  engine.Enqueue("large", {.prompt_tokens = 11, .max_tokens = 4});
  EXPECT_THAT(engine.Moves(), IsEmpty());
  EXPECT_EQ(engine.State("a"), State::kRunning);
  EXPECT_EQ(engine.State("b"), State::kRunning);
  // The blocks of one suffice.
  engine.Enqueue("small", {.prompt_tokens = 4, .max_tokens = 4, .priority = -1});
  EXPECT_EQ(engine.State("b"), State::kPreempted);
  EXPECT_EQ(engine.State("a"), State::kRunning);
}

TEST(KvLadderTest, PreemptMayAskForATierAndForAnotherOne) {
  EngineHarness engine(Small(8, 8));
  engine.Enqueue("a", kTwoBlocks);
  engine.Step();
  const OperationResult paused = engine.Preempt("a", "", KvTier::kHost);
  EXPECT_EQ(paused.generation->kv_tier, KvTier::kDevice) << "the pause is acknowledged, the move is not done";
  EXPECT_THAT(engine.Moves(), ElementsAre("a DEVICE>HOST 1"));
  engine.FinishMove();
  EXPECT_EQ(engine.Get("a").generation->kv_tier, KvTier::kHost);
  engine.Preempt("a", "", KvTier::kDisk);
  EXPECT_THAT(engine.Moves(), ElementsAre("a HOST>DISK 1"));
  engine.FinishMove();
  EXPECT_EQ(engine.GetEngine().disk.paused_count, 1);
  EXPECT_EQ(engine.GetEngine().host.free_count, 8);
  engine.Preempt("a", "", KvTier::kDevice);
  EXPECT_THAT(engine.Moves(), ElementsAre("a DISK>DEVICE 1"));
  engine.FinishMove();
  EXPECT_EQ(engine.State("a"), State::kPaused);
  EXPECT_EQ(engine.Get("a").generation->kv_tier, KvTier::kDevice);
  EXPECT_THAT(engine.discarded_files(), IsEmpty()) << "its file stays until it finishes";
  engine.Continue("a");
  engine.RunUntilIdle();
  EXPECT_THAT(engine.discarded_files(), ElementsAre("a"));
}

TEST(KvLadderTest, ATierThatIsNotConfiguredIsRefused) {
  EngineHarness engine(Small(0));
  engine.Enqueue("a", kTwoBlocks);
  engine.Step();
  for (const auto& [tier, flag] : {std::pair(KvTier::kHost, "kv_host_bytes"), {KvTier::kDisk, "kv_disk_dir"}}) {
    const OperationResult result = engine.Preempt("a", "", tier);
    EXPECT_EQ(result.status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(result.status.message()), HasSubstr(flag));
  }
  EXPECT_EQ(engine.State("a"), State::kRunning) << "nothing has changed";
}

TEST(KvLadderTest, WhereTheTierIsFullThePauseHoldsAndTheKvMovesWhenThereIsRoom) {
  EngineHarness engine(Small(/*host_blocks=*/2));
  RunAndPause(engine, "a");
  RunAndPause(engine, "b");
  engine.Preempt("a", "", KvTier::kHost);
  engine.Preempt("b", "", KvTier::kHost);
  EXPECT_THAT(engine.Moves(), ElementsAre("a DEVICE>HOST 2"));
  engine.FinishMove();
  EXPECT_THAT(engine.Moves(), IsEmpty());
  EXPECT_EQ(engine.State("b"), State::kPaused);
  engine.Abort("a");
  EXPECT_THAT(engine.Moves(), ElementsAre("b DEVICE>HOST 2"));
}

TEST(KvLadderTest, ContinueStopsAMoveThatGoesOut) {
  EngineHarness engine(Small(8));
  RunAndPause(engine, "a");
  engine.Preempt("a", "", KvTier::kHost);
  engine.Continue("a");
  EXPECT_THAT(engine.cancelled_moves(), ElementsAre(engine.moves().at(0).id));
  EXPECT_FALSE(engine.engine().HasWork()) << "the copy still reads its blocks";
  // Too late to be stopped, or stopped: it is where it was.
  engine.FinishMove();
  EXPECT_EQ(engine.Get("a").generation->kv_tier, KvTier::kDevice);
  EXPECT_EQ(engine.GetEngine().host.free_count, 8);
  EXPECT_THAT(engine.moved(), IsEmpty());
  engine.RunUntilIdle();
  EXPECT_THAT(engine.finished(), ElementsAre("a"));
}

TEST(KvLadderTest, BlocksOfOneThatEndsWhileItMovesAreFreeWhenTheCopyIsDone) {
  EngineHarness engine(Small(8, 8));
  RunAndPause(engine, "a");
  engine.Preempt("a", "", KvTier::kDisk);
  engine.Abort("a");
  EXPECT_EQ(engine.GetEngine().device.moving_count, 2);
  EXPECT_EQ(engine.GetEngine().device.free_count, 2);
  EXPECT_THAT(engine.discarded_files(), ElementsAre("a")) << "what is written is not left behind";
  engine.FinishMove();
  EXPECT_EQ(engine.GetEngine().device.free_count, 4);
  EXPECT_EQ(engine.GetEngine().disk.free_count, 8);
  EXPECT_THAT(engine.discarded_files(), ElementsAre("a")) << "not again: an heir of the id may have a file by now";
}

TEST(KvLadderTest, WhereTheHostIsFullTheOldestThereGoesToTheDisk) {
  EngineHarness engine(Small(/*host_blocks=*/2, /*disk_blocks=*/8));
  RunAndPause(engine, "a");
  RunAndPause(engine, "b");
  engine.Preempt("a", "", KvTier::kHost);
  engine.FinishMove();
  RunAndPause(engine, "c");
  EXPECT_THAT(engine.Moves(), IsEmpty());
  engine.Enqueue("d", kTwoBlocks);
  EXPECT_THAT(engine.Moves(), ElementsAre("a HOST>DISK 2")) << "first of all there must be room in the host";
  engine.FinishMove();
  EXPECT_THAT(engine.Moves(), ElementsAre("b DEVICE>HOST 2"));
  engine.FinishMove();
  engine.RunUntilIdle();
  EXPECT_THAT(engine.finished(), ElementsAre("d"));
}

TEST(KvLadderTest, AFailingDiskLosesNothingAndIsTriedAgainLater) {
  EngineHarness engine(Small(/*host_blocks=*/0, /*disk_blocks=*/8));
  RunAndPause(engine, "a");
  RunAndPause(engine, "b");
  engine.Enqueue("c", kTwoBlocks);
  EXPECT_THAT(engine.Moves(), ElementsAre("a DEVICE>DISK 2"));
  engine.FinishMove(absl::ResourceExhaustedError("no space left"));
  EXPECT_THAT(engine.moved().back().error, HasSubstr("no space left"));
  EXPECT_EQ(engine.Get("a").generation->kv_tier, KvTier::kDevice);
  EXPECT_EQ(engine.GetEngine().kv_move_failed_total, 1);
  EXPECT_EQ(engine.GetEngine().disk.free_count, 8);
  EXPECT_THAT(engine.Moves(), IsEmpty()) << "not at once";
  EXPECT_LT(engine.engine().NextTimer(), absl::InfiniteFuture());
  engine.Advance(engine.engine().NextTimer() - engine.now());
  engine.Boundary();
  EXPECT_THAT(engine.Moves(), ElementsAre("a DEVICE>DISK 2"));
  engine.FinishMove();
  engine.RunUntilIdle();
  EXPECT_THAT(engine.finished(), ElementsAre("c"));
}

TEST(KvLadderTest, KvThatCannotBeReadBackEndsItsGenerationWithTheReason) {
  EngineHarness engine(Small(0, 8));
  RunAndPause(engine, "a");
  engine.Preempt("a", "", KvTier::kDisk);
  engine.FinishMove();
  engine.Continue("a");
  engine.FinishMove(absl::DataLossError("block 1 has a wrong checksum"));
  const GenerationInfo info = *engine.Get("a").generation;
  EXPECT_EQ(info.finish_reason, FinishReason::kError);
  EXPECT_THAT(info.error_message, HasSubstr("wrong checksum"));
  EXPECT_EQ(engine.GetEngine().device.free_count, 4);
}

TEST(KvLadderTest, OnesWithMoreThanTheyHadBeforeComeBackWithRoomForIt) {
  EngineHarness engine(Small(8));
  RunAndPause(engine, "a");
  engine.Preempt("a", "", KvTier::kHost);
  engine.FinishMove();
  engine.Boundary({ContinueCommand{.ids = {IdOf("a")}, .append = {TokenId{'q'}, TokenId{'q'}}, .max_tokens = 8}});
  engine.FinishMove();
  EXPECT_EQ(engine.Get("a").generation->kv_blocks.device, 3) << "for eight tokens, and one more";
  engine.Step();
  EXPECT_EQ(engine.BatchTokens("a"), 3) << "the last sampled one, and what was appended";
  engine.RunUntilIdle();
  EXPECT_EQ(engine.Get("a").generation->usage.output_token_count, 8);
}

TEST(KvLadderTest, SharedBlocksAreCopiedAndTheirTwinsAreTakenUpAgain) {
  EngineOptions options = Small(8);
  options.block_count = 6;
  options.prefix_sharing = PrefixSharing::kAll;
  EngineHarness engine(options);
  // Both begin with the same full block.
  engine.Enqueue("a", {.prompt_tokens = 6, .max_tokens = 4});
  engine.Step();
  engine.Enqueue("b", {.prompt_tokens = 6, .max_tokens = 4});
  engine.Step();
  EXPECT_EQ(engine.Get("b").generation->usage.cached_token_count, 4);
  engine.Preempt("b", "", KvTier::kHost);
  EXPECT_THAT(engine.Moves(), ElementsAre("b DEVICE>HOST 2"));
  engine.FinishMove();
  engine.Continue("b");
  EXPECT_THAT(engine.Moves(), ElementsAre("b HOST>DEVICE 1")) << "the first is in the cache";
  EXPECT_EQ(engine.moves().at(0).first_block, 1);
  engine.FinishMove();
  engine.RunUntilIdle();
  const Usage usage = engine.Get("b").generation->usage;
  EXPECT_EQ(usage.prefilled_token_count, 2);
  EXPECT_EQ(usage.cached_token_count, 4);
}

}  // namespace
}  // namespace fermata
