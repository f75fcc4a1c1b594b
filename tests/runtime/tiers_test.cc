// Goal: with real threads, KV goes to the host and to the disk and comes back, beside the steps, and a second runtime
// goes on with what the first one parked. Method: the fake model, which reads back every token that it has ever
// written.

#include <unistd.h>

#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/runtime/kv_tiers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_model.h"
#include "tests/runtime/runtime_harness.h"

namespace fermata {
namespace {

using ::testing::HasSubstr;

class TiersTest : public testing::Test {
 protected:
  TiersTest() : folder_(absl::StrCat(testing::TempDir(), "/tiers_test_", getpid())) {
    std::filesystem::remove_all(folder_);
  }
  ~TiersTest() override { std::filesystem::remove_all(folder_); }

  EngineRuntime::Options Options(int32_t block_count = 64) {
    EngineRuntime::Options options;
    options.engine.block_count = block_count;
    options.engine.block_tokens = 4;
    // For the size of its blocks alone.
    FakeModelRunner runner({.block_count = block_count, .block_tokens = 4});
    absl::StatusOr<KvTiers> tiers = OpenKvTiers({.host_bytes = 32 * runner.kv_block_bytes(),
                                                 .disk_dir = folder_,
                                                 .disk_bytes = 1000 * runner.kv_block_bytes(),
                                                 .fingerprint = "fake"},
                                                runner, options.engine);
    EXPECT_TRUE(tiers.ok()) << tiers.status();
    options.tiers = *std::move(tiers);
    return options;
  }

  static GenerationInfo Get(RuntimeHarness& harness, const std::string& id) {
    return *harness.Call(GetGenerationCommand{.id = Ids(id)[0]}).result().generation;
  }

  static void AwaitTier(RuntimeHarness& harness, const std::string& id, KvTier tier) {
    const absl::Time end = absl::Now() + absl::Seconds(30);
    while (Get(harness, id).kv_tier != tier && absl::Now() < end) absl::SleepFor(absl::Milliseconds(1));
    ASSERT_EQ(Get(harness, id).kv_tier, tier);
  }

  const std::string folder_;
};

TEST_F(TiersTest, ToTheHostToTheDiskAndBackTheOutputIsTheSame) {
  for (const KvTier tier : {KvTier::kHost, KvTier::kDisk}) {
    RuntimeHarness harness(Options(), /*gated=*/true);
    const EnqueueCommand command = Enqueue("a", 60);
    const Answer answer = harness.Call(command);
    harness.gate().Allow(5);
    harness.gate().AwaitArrival();
    std::future<Answer> paused = harness.Start(PreemptCommand{.ids = Ids("a"), .tier = tier});
    harness.gate().Open();
    EXPECT_GT(paused.get().result().generation->usage.output_token_count, 0);
    AwaitTier(harness, "a", tier);
    harness.Call(ContinueCommand{.ids = Ids("a")});
    EXPECT_EQ(ReadToEnd(*answer.log).tokens, ExpectedOutput(command.spec, harness.decoder()).tokens);
  }
}

TEST_F(TiersTest, FromTheDeviceAndTheHostTogetherToTheDiskAndBack) {
  EngineRuntime::Options options = Options(/*block_count=*/10);
  options.engine.least_demotion_blocks = 1;
  RuntimeHarness harness(options, /*gated=*/true);
  EnqueueCommand low = Enqueue("low", 34);
  low.spec.priority = 9;
  const Answer answer = harness.Call(low);
  harness.gate().Allow(30);
  harness.gate().AwaitArrival();
  EnqueueCommand high = Enqueue("high", 12);
  high.spec.prompt.resize(12);
  std::future<Answer> accepted = harness.Start(high);
  // It steps when the blocks that it lacked have left.
  harness.gate().Allow(1);
  harness.gate().AwaitArrival();
  std::future<Answer> split = harness.Start(GetGenerationCommand{.id = Ids("low")[0]});
  std::future<Answer> paused = harness.Start(PreemptCommand{.ids = Ids("low"), .tier = KvTier::kDisk});
  harness.gate().Open();
  const KvBlockCounts counts = split.get().result().generation->kv_blocks;
  EXPECT_GT(counts.device, 0);
  EXPECT_GT(counts.host, 0);
  AwaitTier(harness, "low", KvTier::kDisk);
  harness.Call(ContinueCommand{.ids = Ids("low")});
  EXPECT_EQ(ReadToEnd(*answer.log).tokens, ExpectedOutput(low.spec, harness.decoder()).tokens);
  EXPECT_EQ(ReadToEnd(*accepted.get().log).tokens, ExpectedOutput(high.spec, harness.decoder()).tokens);
}

TEST_F(TiersTest, ManyAreSentAwayAndCalledBackWhileOthersRun) {
  RuntimeHarness harness(Options(/*block_count=*/40));
  std::vector<Answer> answers;
  for (int i = 0; i < 24; ++i) answers.push_back(harness.Call(Enqueue(absl::StrCat("g", i), 40)));
  constexpr KvTier kTiers[] = {KvTier::kHost, KvTier::kDisk, KvTier::kDevice, KvTier::kNone};
  for (int i = 0; i < 400; ++i) {
    const std::vector<GenerationId> ids = Ids(absl::StrCat("g", i * 7 % 24));
    if (i % 3 == 2) {
      harness.Call(ContinueCommand{.ids = ids});
    } else {
      harness.Call(PreemptCommand{.ids = ids, .tier = kTiers[i % 4]});
    }
  }
  for (int i = 0; i < 24; ++i) harness.Call(ContinueCommand{.ids = Ids(absl::StrCat("g", i))});
  for (int i = 0; i < 24; ++i) {
    const Output output = ReadToEnd(*answers[i].log);
    EXPECT_EQ(output.finish.finish_reason, FinishReason::kLength) << output.finish.error_message;
    EXPECT_EQ(output.tokens, ExpectedOutput(Enqueue("g", 40).spec, harness.decoder()).tokens);
    EXPECT_EQ(output.finish.usage.recomputed_token_count, 0);
  }
}

TEST_F(TiersTest, WhatLivesAtTheEndIsParkedAndTheNextOneGoesOn) {
  const EnqueueCommand command = Enqueue("a", 60);
  std::vector<TokenId> before;
  {
    RuntimeHarness harness(Options(), /*gated=*/true);
    const Answer answer = harness.Call(command);
    harness.gate().Allow(10);
    harness.gate().AwaitArrival();
    // Shutdown() pauses it after the step under way.
    std::thread opener([&] {
      absl::SleepFor(absl::Milliseconds(50));
      harness.gate().Open();
    });
    harness.runtime().Shutdown("the end");
    opener.join();
    TokenLog::Cursor cursor = answer.log->Enter(0);
    TokenLog::Item item = answer.log->Read(cursor, [] {});
    while (!std::holds_alternative<LogClosed>(item)) {
      ASSERT_FALSE(std::holds_alternative<std::monostate>(item)) << "its readers are told that this process ends";
      ASSERT_FALSE(std::holds_alternative<LogFinish>(item)) << "it has not ended";
      if (const auto* chunk = std::get_if<LogChunk>(&item)) {
        before.insert(before.end(), chunk->tokens.begin(), chunk->tokens.end());
      }
      item = answer.log->Read(cursor, [] {});
    }
    answer.log->Leave(cursor);
  }
  RuntimeHarness harness(Options());
  const Answer attached = harness.Call(AttachCommand{.id = Ids("a")[0]});
  ASSERT_TRUE(attached.result().status.ok()) << attached.result().status;
  EXPECT_EQ(attached.result().generation->state, GenerationState::kPaused);
  EXPECT_EQ(attached.result().generation->usage.output_token_count, static_cast<int64_t>(before.size()));
  harness.Call(ContinueCommand{.ids = Ids("a")});
  EXPECT_EQ(ReadToEnd(*attached.log).tokens, ExpectedOutput(command.spec, harness.decoder()).tokens);
}

TEST_F(TiersTest, TiersThatHoldNoBlockAreRefusedByTheirFlag) {
  FakeModelRunner runner({.block_count = 4, .block_tokens = 4});
  EngineOptions engine;
  absl::StatusOr<KvTiers> tiers = OpenKvTiers({.host_bytes = 10}, runner, engine);
  EXPECT_TRUE(absl::IsInvalidArgument(tiers.status()));
  EXPECT_THAT(std::string(tiers.status().message()), HasSubstr("--kv_host_bytes"));
  tiers = OpenKvTiers({.disk_dir = folder_, .disk_bytes = 10, .fingerprint = "fake"}, runner, engine);
  EXPECT_THAT(std::string(tiers.status().message()), HasSubstr("--kv_disk_bytes"));
}

}  // namespace
}  // namespace fermata
