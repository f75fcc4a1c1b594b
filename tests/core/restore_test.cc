// Goal: what one process parks another one goes on with, and what is no parked generation is refused. Method: two
// engines, and what the first writes handed to the second.

#include <functional>
#include <limits>
#include <string>
#include <utility>

#include "engine/core/unpark.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/engine_harness.h"

namespace fermata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using State = GenerationState;

EngineOptions WithDisk() {
  EngineOptions options;
  options.block_tokens = 4;
  options.block_count = 16;
  options.disk_block_count = 100;
  return options;
}

// Runs "a" for some steps and parks it.
KvMove ParkOne(EngineHarness& engine, int steps = 3, const Job& job = {.prompt_tokens = 5, .max_tokens = 8}) {
  engine.Enqueue("a", job);
  engine.Script("a", "hello");
  engine.Step(steps);
  engine.Preempt("a", "later", KvTier::kDisk);
  KvMove move = engine.moves().at(0);
  engine.FinishMove();
  return move;
}

TEST(RestoreTest, AnotherProcessGoesOnWithTheSameTokensAndCounts) {
  EngineHarness first(WithDisk());
  const KvMove move = ParkOne(first);
  ASSERT_EQ(move.parked->computed_token_count, 7);
  ASSERT_EQ(move.block_count, 2);
  EXPECT_EQ(CheckParked(*move.parked, 2, 4, 64, 257), absl::OkStatus());

  EngineHarness second(WithDisk());
  second.Boundary({RestoreCommand{*move.parked, move.block_count}});
  const GenerationInfo found = *second.Get("a").generation;
  EXPECT_EQ(found.state, State::kPaused);
  EXPECT_EQ(found.kv_tier, KvTier::kDisk);
  EXPECT_EQ(found.pause.reason, "later");
  EXPECT_EQ(found.usage.output_token_count, 3);
  EXPECT_EQ(found.usage.pause_count, 1);
  EXPECT_EQ(second.Text("a"), "hel") << "told again, for those who attach";
  // The same request is the same generation.
  EXPECT_FALSE(second.Enqueue("a", {.prompt_tokens = 5, .max_tokens = 8}).created);

  second.Script("a", "hello");
  second.Continue("a");
  EXPECT_THAT(second.Moves(), ElementsAre("a DISK>DEVICE 2"));
  second.FinishMove();
  second.RunUntilIdle();
  EXPECT_EQ(second.Text("a"), "helloxxx");
  const Usage usage = second.Get("a").generation->usage;
  EXPECT_EQ(usage.prefilled_token_count, 5);
  EXPECT_EQ(usage.recomputed_token_count, 0);
  EXPECT_THAT(second.discarded_files(), ElementsAre("a"));
}

TEST(RestoreTest, OneWhoseKvWasDroppedIsComputedAgainByAnotherProcessAndCountedAsThat) {
  EngineOptions options = WithDisk();
  options.block_count = 4;
  options.disk_block_count = 1;  // too few for what runs, enough for one without KV
  options.allow_recompute = true;
  EngineHarness first(options);
  for (const char* id : {"old", "a"}) first.Enqueue(id, {.prompt_tokens = 4, .max_tokens = 8});
  first.Script("a", "hello wo");
  while (first.State("a") == State::kQueued || first.State("a") == State::kRunning) first.Step();
  ASSERT_EQ(first.State("a"), State::kPreempted);
  const GenerationInfo dropped = *first.Get("a").generation;
  ASSERT_EQ(dropped.kv_tier, KvTier::kNone);
  const int64_t told = dropped.usage.output_token_count;
  ASSERT_EQ(told, 5);
  first.Preempt("a", "later", KvTier::kDisk);
  ASSERT_THAT(first.Moves(), ElementsAre("a NONE>DISK 0"));
  const KvMove move = first.moves().at(0);
  EXPECT_EQ(CheckParked(*move.parked, move.block_count, 4, 64, 257), absl::OkStatus());

  options.allow_recompute = false;  // what another process dropped has to be computed again all the same
  EngineHarness second(options);
  second.Boundary({RestoreCommand{*move.parked, move.block_count}});
  EXPECT_EQ(second.Text("a"), "hello");
  second.Script("a", "hello wo");
  second.Continue("a");
  second.FinishMoves();
  second.Step();
  EXPECT_EQ(second.BatchTokens("a"), 4 + told) << "all that had been told, in one step";
  second.RunUntilIdle();
  EXPECT_EQ(second.Text("a"), "hello wo");
  const Usage usage = second.Get("a").generation->usage;
  EXPECT_EQ(usage.prefilled_token_count, 4) << "once, in the first process";
  EXPECT_EQ(usage.recomputed_token_count, 4 + told - 1) << "the last token's KV had never been written";
}

TEST(RestoreTest, ALeaseStartsAfreshAndASessionMayBeOpenedAgain) {
  EngineHarness first(WithDisk());
  first.Boundary({OpenSessionCommand{.session_id = "s", .ttl = absl::Seconds(10)}});
  first.Enqueue("a");
  first.Step(2);
  const Report opened =
      first.Boundary({OpenSessionCommand{.session_id = "s", .ttl = absl::Seconds(10), .takeover = true}});
  const int64_t epoch = std::get<SessionInfo>(opened.replies.at(0).result).epoch;
  first.Boundary({PreemptCommand{.ids = {IdOf("a")},
                                 .tier = KvTier::kDisk,
                                 .lease = {absl::Seconds(30), OnLeaseExpiry::kAbort},
                                 .caller = {"s", epoch}}});
  const KvMove move = first.moves().at(0);

  EngineHarness second(WithDisk());
  second.Boundary({RestoreCommand{*move.parked, move.block_count}});
  EXPECT_EQ(second.Get("a").generation->pause.lease_expire_time, second.now() + absl::Seconds(30));
  // Without takeover, for nobody has it in this process.
  const Report again = second.Boundary({OpenSessionCommand{.session_id = "s", .ttl = absl::Seconds(10)}});
  EXPECT_TRUE(again.replies.at(0).status.ok());

  EngineHarness third(WithDisk());
  third.Boundary({RestoreCommand{*move.parked, move.block_count}});
  third.Advance(absl::Seconds(10));
  third.Boundary();
  EXPECT_EQ(third.Get("a").generation->finish_reason, FinishReason::kAborted) << "as was asked for the session's end";
}

TEST(RestoreTest, OneThatWasHeldOnStopIsSoAgain) {
  EngineHarness first(WithDisk());
  EnqueueCommand enqueue = {.id = IdOf("a")};
  enqueue.spec.prompt = {TokenId{'p'}, TokenId{'p'}};
  enqueue.spec.sampling.max_tokens = 4;
  enqueue.spec.hold_on_stop = true;
  first.Boundary({enqueue});
  first.RunUntilIdle();
  first.Preempt("a", "", KvTier::kDisk);
  const KvMove move = first.moves().at(0);
  EXPECT_EQ(move.parked->held_finish, FinishReason::kLength);
  EXPECT_THAT(move.parked->text_begins, ElementsAre(4));
  EXPECT_EQ(CheckParked(*move.parked, move.block_count, 4, 64, 257), absl::OkStatus());

  EngineHarness second(WithDisk());
  second.Boundary({RestoreCommand{*move.parked, move.block_count}});
  second.Boundary({ContinueCommand{.ids = {IdOf("a")}, .append = {TokenId{'q'}}, .max_tokens = 6}});
  second.FinishMoves();
  second.RunUntilIdle();
  EXPECT_EQ(second.Get("a").generation->usage.output_token_count, 6);
  EXPECT_EQ(second.Get("a").generation->usage.prefilled_token_count, 3);
}

TEST(RestoreTest, AtTheEndEverythingThatLivesIsParkedAndLeftAlone) {
  EngineOptions options = WithDisk();
  options.max_running = 1;
  EngineHarness engine(options);
  engine.Enqueue("runs");
  engine.Step(2);
  engine.Enqueue("waits");
  engine.Enqueue("held", {.hold = true});
  engine.Boundary({ParkAllCommand{"the server has ended"}});
  EXPECT_THAT(engine.Moves(), ElementsAre("held NONE>DISK 0", "runs DEVICE>DISK 2", "waits NONE>DISK 0"));
  engine.FinishMove();
  engine.FinishMove();
  engine.FinishMove(absl::ResourceExhaustedError("no space left"));
  engine.Boundary({AbortAllCommand{.reason = "the server has ended", .keep_parked = true}});
  EXPECT_THAT(engine.finished(), ElementsAre("waits")) << "what could not be written is told so";
  EXPECT_THAT(engine.discarded_files(), IsEmpty());
  EXPECT_EQ(engine.State("held"), State::kPaused);
}

TEST(RestoreTest, WhatCannotBeIsRefused) {
  EngineHarness engine(WithDisk());
  const KvMove move = ParkOne(engine);
  const std::pair<const char*, std::function<void(ParkedGeneration&)>> changes[] = {
      {"counts", [](ParkedGeneration& p) { p.usage.output_token_count += 1; }},
      {"counts", [](ParkedGeneration& p) { p.usage.prompt_token_count = 0; }},
      {"counts", [](ParkedGeneration& p) { p.context.clear(); }},
      {"tokens that the model", [](ParkedGeneration& p) { p.context[0] = TokenId{257}; }},
      {"tokens that the model", [](ParkedGeneration& p) { p.context[0] = TokenId{-1}; }},
      {"temperature", [](ParkedGeneration& p) { p.spec.sampling.temperature = -1; }},
      {"--context_tokens", [](ParkedGeneration& p) { p.spec.sampling.max_tokens = 1000; }},
      {"max_tokens", [](ParkedGeneration& p) { p.spec.sampling.max_tokens = 3; }},
      {"KV of", [](ParkedGeneration& p) { p.computed_token_count = 8; }},
      {"KV of", [](ParkedGeneration& p) { p.computed_token_count = 6; }},
      {"KV of", [](ParkedGeneration& p) { p.computed_token_count = -1; }},
      {"blocks", [](ParkedGeneration& p) { p.computed_token_count = 3; }},
      {"appended",
       [](ParkedGeneration& p) {
         p.appended = {{6, 9}};
       }},
      {"texts", [](ParkedGeneration& p) { p.text_begins = {4}; }},
      {"cached", [](ParkedGeneration& p) { p.usage.cached_token_count = 8; }},
      {"prefilled", [](ParkedGeneration& p) { p.usage.prefilled_token_count = -1; }},
      {"computed again", [](ParkedGeneration& p) { p.usage.recomputed_token_count = int64_t{1} << 40; }},
      {"times displaced", [](ParkedGeneration& p) { p.usage.preemption_count = -1; }},
      {"times paused", [](ParkedGeneration& p) { p.usage.pause_count = std::numeric_limits<int64_t>::min(); }},
      {"times paused", [](ParkedGeneration& p) { p.usage.pause_count = std::numeric_limits<int64_t>::max(); }},
      // Their sum would be none.
      {"counts",
       [](ParkedGeneration& p) {
         p.usage.prompt_token_count = p.usage.appended_token_count = std::numeric_limits<int64_t>::max();
       }},
  };
  for (const auto& [what, change] : changes) {
    ParkedGeneration parked = *move.parked;
    change(parked);
    const absl::Status status = CheckParked(parked, move.block_count, 4, 64, 257);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << what;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what));
  }
}

}  // namespace
}  // namespace fermata
