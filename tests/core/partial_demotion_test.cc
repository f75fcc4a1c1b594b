// Goal: one that gives way for blocks gives just enough of them, from its end, and what is on two tiers can go on from
// there to anywhere. Method: small pools, moves that are finished by hand.

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/engine_harness.h"

namespace fermata {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using State = GenerationState;

// A pool of 8 blocks of 4 tokens, of which a victim gives single ones.
EngineOptions Small(int32_t host_blocks = 8, int64_t disk_blocks = 0) {
  EngineOptions options;
  options.block_tokens = 4;
  options.block_count = 8;
  options.host_block_count = host_blocks;
  options.disk_block_count = disk_blocks;
  options.least_demotion_blocks = 1;
  return options;
}

constexpr Job kLow = {.prompt_tokens = 20, .max_tokens = 8, .priority = 9};   // 6 blocks, 5 of them with KV
constexpr Job kHigh = {.prompt_tokens = 12, .max_tokens = 3, .priority = 0};  // 4 blocks

// "low" has computed its prompt, and "high" lacks two blocks.
void LetHighCutIn(EngineHarness& engine) {
  engine.Enqueue("low", kLow);
  engine.Step();
  engine.Enqueue("high", kHigh);
}

void RunToTheEnd(EngineHarness& engine) {
  for (int i = 0; i < 1000; ++i) {
    engine.Boundary();
    if (!engine.moves().empty()) {
      engine.FinishMove();
    } else if (engine.engine().HasWork()) {
      engine.Step();
    } else {
      return;
    }
  }
  ADD_FAILURE() << "it does not end";
}

void ExpectNothingComputedTwice(EngineHarness& engine, const std::string& id, int prefilled, int output) {
  const Usage usage = engine.Get(id).generation->usage;
  EXPECT_EQ(usage.prefilled_token_count, prefilled) << id;
  EXPECT_EQ(usage.recomputed_token_count, 0) << id;
  EXPECT_EQ(usage.output_token_count, output) << id;
}

TEST(PartialDemotionTest, AVictimGivesJustEnoughFromItsEndAndComesBack) {
  EngineHarness engine(Small());
  LetHighCutIn(engine);
  EXPECT_EQ(engine.State("low"), State::kPreempted);
  EXPECT_THAT(engine.Moves(), ElementsAre("low DEVICE>HOST 1")) << "the other one has no KV yet";
  EXPECT_EQ(engine.moves().at(0).first_block, 4);
  engine.FinishMove();
  const GenerationInfo split = *engine.Get("low").generation;
  EXPECT_EQ(split.kv_tier, KvTier::kHost) << "the farthest that holds any of it";
  EXPECT_EQ(split.kv_blocks.device, 4);
  EXPECT_EQ(split.kv_blocks.host, 1);
  EXPECT_EQ(engine.moved().back().block_count, 1);
  EXPECT_EQ(engine.GetEngine().device.preempted_count, 4);
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("high"));
  engine.RunUntilIdle();
  engine.Boundary();
  EXPECT_THAT(engine.Moves(), ElementsAre("low HOST>DEVICE 1"));
  RunToTheEnd(engine);
  EXPECT_THAT(engine.finished(), ElementsAre("high", "low"));
  ExpectNothingComputedTwice(engine, "low", 20, 8);
}

TEST(PartialDemotionTest, ItGivesNoLessThanTheLeast) {
  EngineOptions options = Small();
  options.least_demotion_blocks = 4;
  EngineHarness engine(options);
  LetHighCutIn(engine);
  EXPECT_THAT(engine.Moves(), ElementsAre("low DEVICE>HOST 3")) << "and the one without KV";
}

TEST(PartialDemotionTest, BlocksWithoutKvAreFreeWithoutACopy) {
  EngineOptions options = Small();
  options.step_tokens = 4;
  EngineHarness engine(options);
  engine.Enqueue("low", {.prompt_tokens = 24, .max_tokens = 4, .priority = 9});
  engine.Step();
  EXPECT_EQ(engine.Get("low").generation->kv_blocks.device, 7);
  engine.Enqueue("high", kHigh);
  EXPECT_THAT(engine.Moves(), IsEmpty());
  EXPECT_EQ(engine.Get("low").generation->kv_blocks.device, 4);
  EXPECT_EQ(engine.Get("low").generation->kv_tier, KvTier::kDevice);
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("high"));
  RunToTheEnd(engine);
  ExpectNothingComputedTwice(engine, "low", 24, 4);
}

TEST(PartialDemotionTest, MoreOfItMayFollow) {
  EngineHarness engine(Small());
  LetHighCutIn(engine);
  engine.FinishMove();
  engine.Enqueue("higher", {.prompt_tokens = 4, .max_tokens = 2, .priority = -1});
  EXPECT_THAT(engine.Moves(), ElementsAre("low DEVICE>HOST 2"));
  EXPECT_EQ(engine.moves().at(0).first_block, 2);
  EXPECT_EQ(engine.Get("low").generation->kv_blocks.host, 1) << "while it moves it is where it was";
  engine.FinishMove();
  EXPECT_EQ(engine.Get("low").generation->kv_blocks.device, 2);
  EXPECT_EQ(engine.Get("low").generation->kv_blocks.host, 3);
  RunToTheEnd(engine);
  ExpectNothingComputedTwice(engine, "low", 20, 8);
}

TEST(PartialDemotionTest, AFailedMoveOfMoreLeavesItAsItWas) {
  EngineHarness engine(Small());
  LetHighCutIn(engine);
  engine.FinishMove();
  engine.Enqueue("higher", {.prompt_tokens = 4, .max_tokens = 2, .priority = -1});
  engine.FinishMove(absl::InternalError("the copy failed"));
  EXPECT_EQ(engine.Get("low").generation->kv_blocks.device, 4);
  EXPECT_EQ(engine.Get("low").generation->kv_blocks.host, 1);
  RunToTheEnd(engine);
  ExpectNothingComputedTwice(engine, "low", 20, 8);
}

TEST(PartialDemotionTest, AskedForATierAllOfItGoesThere) {
  for (const KvTier tier : {KvTier::kHost, KvTier::kDisk, KvTier::kDevice}) {
    EngineHarness engine(Small(/*host_blocks=*/8, /*disk_blocks=*/8));
    LetHighCutIn(engine);
    engine.FinishMove();
    engine.Preempt("low", "", tier);
    if (tier == KvTier::kHost) {
      EXPECT_THAT(engine.Moves(), ElementsAre("low DEVICE>HOST 4"));
    } else if (tier == KvTier::kDisk) {
      EXPECT_THAT(engine.Moves(), ElementsAre("low HOST>DISK 5"));
      EXPECT_EQ(engine.moves().at(0).device_source.size(), 4u);
      EXPECT_EQ(engine.moves().at(0).source.size(), 1u);
    }
    RunToTheEnd(engine);
    const GenerationInfo info = *engine.Get("low").generation;
    EXPECT_EQ(info.kv_tier, tier);
    EXPECT_EQ(info.kv_blocks.total(), tier == KvTier::kDevice ? 6 : 5);
    engine.Continue("low");
    RunToTheEnd(engine);
    ExpectNothingComputedTwice(engine, "low", 20, 8);
    EXPECT_EQ(engine.GetEngine().device.free_count, 8);
    EXPECT_EQ(engine.GetEngine().host.free_count, 8);
    EXPECT_EQ(engine.GetEngine().disk.free_count, 8);
  }
}

TEST(PartialDemotionTest, EndedOnTwoTiersItLeavesBoth) {
  EngineHarness engine(Small());
  LetHighCutIn(engine);
  engine.FinishMove();
  engine.Abort("low");
  EXPECT_EQ(engine.GetEngine().host.free_count, 8);
  EXPECT_EQ(engine.GetEngine().device.free_count, 8);
}

TEST(PartialDemotionTest, AHostWithRoomForAPartTakesThatPart) {
  EngineHarness engine(Small(/*host_blocks=*/1));
  engine.Enqueue("paused", {.prompt_tokens = 20, .max_tokens = 8});
  engine.Step();
  engine.Preempt("paused");
  engine.Enqueue("next", kHigh);
  EXPECT_THAT(engine.Moves(), ElementsAre("paused DEVICE>HOST 1"));
  RunToTheEnd(engine);
  EXPECT_THAT(engine.finished(), ElementsAre("next"));
  engine.Continue("paused");
  RunToTheEnd(engine);
  ExpectNothingComputedTwice(engine, "paused", 20, 8);
}

TEST(PartialDemotionTest, OneOnTwoTiersIsDroppedAsAWholeWhereNoTierHasRoom) {
  EngineOptions options = Small(/*host_blocks=*/1);
  options.allow_recompute = true;
  EngineHarness engine(options);
  LetHighCutIn(engine);
  engine.FinishMove();
  engine.Enqueue("higher", {.prompt_tokens = 4, .max_tokens = 2, .priority = -1});
  EXPECT_EQ(engine.Get("low").generation->kv_tier, KvTier::kNone);
  EXPECT_EQ(engine.GetEngine().host.free_count, 1);
  EXPECT_EQ(engine.moved().back().from, KvTier::kHost);
  RunToTheEnd(engine);
  EXPECT_EQ(engine.Get("low").generation->usage.recomputed_token_count, 20);
}

// Those of a class that is at its cap, none of which can run, and one of which is elsewhere: nobody came back, and
// nobody gave way.
TEST(PartialDemotionTest, InAClassAtItsCapOfBlocksTheHeadGoesOn) {
  EngineOptions options = Small();
  options.block_count = 32;
  options.classes = {{.name = "batch", .max_kv_blocks = 6}};
  EngineHarness engine(options);
  for (const std::string id : {"a", "b", "c"}) {
    EnqueueCommand command;
    command.id = IdOf(id);
    command.body_digest = "body";
    command.spec.traffic_class = "batch";
    command.spec.prompt.assign(8, TokenId{'p'});
    command.spec.sampling.max_tokens = 8;
    engine.Boundary({command});
    engine.Step(4);
    engine.Preempt(id, "", id == "c" ? KvTier::kHost : KvTier::kNone);
  }
  engine.FinishMoves();
  engine.Boundary({ContinueCommand{.ids = {IdOf("a"), IdOf("b"), IdOf("c")}}});
  EXPECT_THAT(engine.Moves(), ElementsAre("b DEVICE>HOST 1")) << "both lack one; the cap has none";
  engine.FinishMove();
  engine.Step();
  EXPECT_THAT(engine.Batch(), ElementsAre("a"));
  RunToTheEnd(engine);
  EXPECT_THAT(engine.finished(), ElementsAre("a", "b", "c"));
}

}  // namespace
}  // namespace fermata
