// Goal: where slots, KV blocks or the token budget are short, the right one gives way, nobody else does, and nothing is
// computed twice or lost. Method: scenarios of other engines' suites (V, G, X and U numbers), over real gRPC, with a
// host tier for what gives way. What is asked holds whenever a newcomer arrives: counts, outputs and steps, no times.

#include <future>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/conformance/conformance_test_base.h"
#include "tests/conformance/watch_reader.h"

namespace fermata {
namespace {

using State = v1::Generation;

constexpr std::chrono::milliseconds kSlow(5);  // a step that a newcomer arrives in the middle of

class PressureTest : public ConformanceTestBase {
 protected:
  static EngineOptions Blocks(int32_t block_count, int32_t block_tokens = 16) {
    EngineOptions options = RoomyOptions();
    options.context_tokens = 2000;
    options.block_count = block_count;
    options.block_tokens = block_tokens;
    return options;
  }

  // All arrive at one boundary, in this order.
  void EnqueueTogether(const std::map<std::string, v1::GenerationSpec>& specs) {
    std::vector<std::string> ids;
    for (const auto& [id, spec] : specs) {
      Enqueue(id, spec, /*hold=*/true);
      ids.push_back(id);
    }
    Continue(ids);
  }

  int64_t PreemptionCount(const std::string& id) { return Get(id).usage().preemption_count(); }

  // They have all that they asked for, the same as undisturbed, and no token was computed twice.
  void ExpectWhole(const std::map<std::string, v1::GenerationSpec>& specs) {
    for (const auto& [id, spec] : specs) AwaitFinished(id, State::LENGTH);
    for (const auto& [id, spec] : specs) {
      const v1::Usage usage = Get(id).usage();
      EXPECT_EQ(usage.prefilled_token_count(), usage.prompt_token_count()) << id;
      EXPECT_EQ(usage.recomputed_token_count(), 0) << id;
      StreamReader reader(data(), AttachAt(id, 0));
      reader.AwaitFinish();
      StreamReader alone(data(), Request(id + "-alone", spec));
      alone.AwaitFinish();
      EXPECT_EQ(reader.tokens(), alone.tokens()) << id;
    }
  }

  // Of each step that computed something: tokens by generation.
  static std::vector<std::map<std::string, int64_t>> Steps(WatchReader& watch) {
    std::vector<std::map<std::string, int64_t>> steps;
    for (const v1::WatchResponse& message : watch.messages()) {
      std::map<std::string, int64_t> step;
      for (const v1::Event& event : message.batch().events()) {
        if (!event.has_progress()) continue;
        const int64_t prefilled = event.progress().prefilled_token_count();
        step[event.generation_id()] = prefilled > 0 ? prefilled : event.progress().output_token_count();
      }
      if (!step.empty()) steps.push_back(step);
    }
    return steps;
  }
};

TEST_F(PressureTest, V11_AnUrgentNewcomerGetsItsBlocksFromTheNewestLessUrgentOne) {
  EngineOptions options = Blocks(5);
  options.max_running = 3;
  options.step_tokens = 200;
  Serve(options, /*host_block_count=*/8, kSlow);
  const v1::GenerationSpec low = Spec(60, 5, /*prompt_tokens=*/17);
  const v1::GenerationSpec high = Spec(3, 0, /*prompt_tokens=*/30);
  EnqueueTogether({{"a", low}, {"b", low}});
  AwaitState("b", State::RUNNING);
  Enqueue("high", high);
  ExpectWhole({{"high", high}, {"a", low}, {"b", low}});
  EXPECT_GE(PreemptionCount("b"), 1);
  EXPECT_EQ(PreemptionCount("a"), 0);
  EXPECT_EQ(PreemptionCount("high"), 0);
}

// There the victim's late token is kept although it was in a batch; here nobody is displaced within a step.
TEST_F(PressureTest, V13_WhereANextTokenHasNoBlockTheNewestGivesWayAndKeepsItsTokens) {
  Serve(Blocks(10), /*host_block_count=*/8);
  const v1::GenerationSpec spec = Spec(30, 0, /*prompt_tokens=*/79);
  EnqueueTogether({{"r0", spec}, {"r1", spec}});
  ExpectWhole({{"r0", spec}, {"r1", spec}});
  EXPECT_EQ(PreemptionCount("r0"), 0);
  EXPECT_EQ(PreemptionCount("r1"), 1);
}

TEST_F(PressureTest, V15_LongPromptsAreCutAndShortOnesDoNotJumpTheQueue) {
  EngineOptions options = RoomyOptions();
  options.max_running = 3;
  options.step_tokens = 1024;
  Serve(options);
  v1::WatchRequest request;
  WatchReader watch(control(), request);
  watch.AwaitSnapshot();
  EnqueueTogether({{"a", Spec(3, 0, 800)}, {"b", Spec(3, 0, 800)}, {"c", Spec(3, 0, 10)}, {"d", Spec(3, 0, 10)}});
  AwaitFinished("d", State::LENGTH);
  watch.AwaitRevision(Get("d").revision());
  const std::vector<std::map<std::string, int64_t>> steps = Steps(watch);
  ASSERT_GE(steps.size(), 2u);
  EXPECT_EQ(steps[0], (std::map<std::string, int64_t>{{"a", 800}, {"b", 224}}));
  EXPECT_EQ(steps[1], (std::map<std::string, int64_t>{{"a", 1}, {"b", 576}, {"c", 10}}));
}

TEST_F(PressureTest, V18_NobodyGoesOutForOneThatItsClassKeepsBack) {
  EngineOptions options = Blocks(40);
  options.max_running = 2;
  options.classes = {{.name = "capped", .max_kv_blocks = 4}};
  Serve(options, /*host_block_count=*/8);
  v1::GenerationSpec capped = Spec(16, 0, /*prompt_tokens=*/44);
  capped.set_traffic_class("capped");
  const v1::GenerationSpec other = Spec(200, 9);
  EnqueueTogether({{"first", capped}, {"other", other}});
  AwaitState("other", State::RUNNING);
  // More urgent than the other, and its class has no blocks for it.
  Enqueue("second", capped);
  ExpectWhole({{"first", capped}, {"second", capped}, {"other", other}});
  EXPECT_EQ(PreemptionCount("other"), 0) << "a slot was free for the second when the first had ended";
}

// There the policy is to be stated; here it is the order of arrival, whoever has run before.
TEST_F(PressureTest, V20_HavingRunGivesNoBetterPlace) {
  EngineOptions options = RoomyOptions();
  options.max_running = 1;
  Serve(options);
  Enqueue("b", Spec(5, 1), /*hold=*/true);  // arrives first, and has never run
  Enqueue("a", Spec(500, 1));
  AwaitState("a", State::RUNNING);
  Enqueue("urgent", Spec(kForever, 0));
  AwaitState("urgent", State::RUNNING);
  EXPECT_EQ(Get("a").state(), State::PREEMPTED);
  Continue({"b"});
  Abort({"urgent"});
  const v1::Generation b = AwaitFinished("b", State::LENGTH);
  const v1::Generation a = AwaitFinished("a", State::LENGTH);
  EXPECT_LT(b.step(), a.step());
  EXPECT_EQ(a.usage().recomputed_token_count(), 0);
}

TEST_F(PressureTest, V21_ForOneSlotOneGoesOut) {
  EngineOptions options = RoomyOptions();
  options.max_running = 4;
  Serve(options);
  for (const char* id : {"a", "b", "c", "d"}) Enqueue(id, Spec(kForever, 9));
  AwaitState("d", State::RUNNING);
  Enqueue("urgent", Spec(20, 0));
  AwaitFinished("urgent", State::LENGTH);
  EXPECT_EQ(GetEngine().totals().preemption_count(), 1);
  EXPECT_EQ(PreemptionCount("d"), 1) << "the newest";
}

TEST_F(PressureTest, G6_APartOfTheBatchGoesOutAndAllEnd) {
  EngineOptions options = RoomyOptions();
  options.max_running = 2;
  Serve(options);
  const v1::GenerationSpec less = Spec(200, 10);
  const v1::GenerationSpec more = Spec(200, 5);
  EnqueueTogether({{"less", less}, {"more", more}});
  AwaitState("less", State::RUNNING);
  const v1::GenerationSpec urgent = Spec(20, 0);
  Enqueue("urgent", urgent);
  ExpectWhole({{"urgent", urgent}, {"more", more}, {"less", less}});
  EXPECT_EQ(PreemptionCount("more"), 0);
}

// r1, r2 and r3 fill the pool. The first newcomer of priority 1 may take from r3 alone, and does; the second one finds
// nobody who is strictly less urgent, and nobody goes out twice.
TEST_F(PressureTest, G11_G13_OnlyTheStrictlyLessUrgentGiveBlocksAndOnlyOnce) {
  EngineOptions options = Blocks(15);
  Serve(options, /*host_block_count=*/32, kSlow);
  const v1::GenerationSpec r1 = Spec(12, 0, 50);
  const v1::GenerationSpec r2 = Spec(8, 1, 70);
  const v1::GenerationSpec r3 = Spec(40, 2, 88);
  EnqueueTogether({{"r1", r1}, {"r2", r2}, {"r3", r3}});
  AwaitState("r3", State::RUNNING);
  const v1::GenerationSpec n1 = Spec(4, 1, 40);
  const v1::GenerationSpec n2 = Spec(4, 1, 76);
  EnqueueTogether({{"n1", n1}, {"n2", n2}});
  ExpectWhole({{"r1", r1}, {"r2", r2}, {"r3", r3}, {"n1", n1}, {"n2", n2}});
  for (const char* id : {"r1", "r2", "n1", "n2"}) EXPECT_EQ(PreemptionCount(id), 0) << id;
  EXPECT_GE(PreemptionCount("r3"), 1);
}

TEST_F(PressureTest, X1_WhatIsUrgentGrowsIntoTheBlocksOfWhatIsNot) {
  Serve(Blocks(8, /*block_tokens=*/32), /*host_block_count=*/16);
  const v1::GenerationSpec offline = Spec(20, 9, 127);
  const v1::GenerationSpec online = Spec(20, 0, 127);
  EnqueueTogether({{"offline", offline}, {"online", online}});
  ExpectWhole({{"online", online}, {"offline", offline}});
  EXPECT_EQ(PreemptionCount("online"), 0);
  EXPECT_EQ(PreemptionCount("offline"), 1);
  EXPECT_LT(Get("online").step(), Get("offline").step());
}

TEST_F(PressureTest, X4_TheOrderOfPrioritiesIsStrictForBlocksToo) {
  Serve(Blocks(11, /*block_tokens=*/32), /*host_block_count=*/16, kSlow);
  const v1::GenerationSpec low = Spec(30, 3, 128);
  const v1::GenerationSpec normal = Spec(30, 2, 128);
  EnqueueTogether({{"low-1", low}, {"low-2", low}, {"normal", normal}});
  AwaitState("normal", State::RUNNING);
  const v1::GenerationSpec high = Spec(10, 1, 32);
  Enqueue("high", high);
  ExpectWhole({{"high", high}, {"normal", normal}, {"low-1", low}, {"low-2", low}});
  EXPECT_EQ(PreemptionCount("high"), 0);
  EXPECT_EQ(PreemptionCount("normal"), 0);
  EXPECT_LT(Get("high").step(), Get("low-1").step());
  EXPECT_LT(Get("normal").step(), Get("low-2").step());
}

// There the KV of those that do not fit is lost, and half of them with it.
TEST_F(PressureTest, U3_TwelveChatsInARoomForFourAllEnd) {
  Serve(Blocks(16), /*host_block_count=*/64);
  std::map<std::string, v1::GenerationSpec> chats;
  for (int i = 0; i < 12; ++i) chats["chat-" + std::to_string(i)] = Spec(40, i % 3, 20 + i);
  EnqueueTogether(chats);
  ExpectWhole(chats);
}

// Holds every copy to the host until it is let go.
class HeldCopies : public FakeModelRunner {
 public:
  HeldCopies(const FakeModelRunnerOptions& options, std::shared_future<void> go)
      : FakeModelRunner(options), go_(std::move(go)) {}

  absl::Status CopyKvToHost(absl::Span<const KvCopy> copies) override {
    go_.wait();
    return FakeModelRunner::CopyKvToHost(copies);
  }

 private:
  const std::shared_future<void> go_;
};

TEST_F(PressureTest, U5_ACopyHoldsNobodyUp) {
  const EngineOptions options = Blocks(40);
  std::promise<void> go;
  FakeModelRunnerOptions model = {.block_count = options.block_count,
                                  .vocabulary_size = FakeModelText().info.vocabulary_size};
  model.before_run = [](const Batch&) {
    std::this_thread::sleep_for(kSlow);
    return absl::OkStatus();
  };
  Serve(options, /*host_block_count=*/16, std::make_unique<HeldCopies>(model, go.get_future().share()));
  const v1::GenerationSpec parked = Spec(400);
  Enqueue("parked", parked);
  StreamReader first(data(), AttachAt("parked", 0));
  first.AwaitTokens(20);
  v1::PreemptRequest request;
  request.add_generation_ids("parked");
  request.set_tier(v1::KvTier::HOST);
  grpc::ClientContext context;
  v1::OperationResults results;
  ASSERT_TRUE(control().Preempt(&context, request, &results).ok()) << "it answers for the pause, not for the copy";
  ASSERT_EQ(results.results(0).code(), 0) << "it had ended before it could be paused";
  StreamReader other(data(), Request("other", Spec(100)));
  EXPECT_EQ(other.AwaitFinish().finish_reason(), State::LENGTH);
  EXPECT_EQ(Get("parked").kv_tier(), v1::KvTier::DEVICE) << "until it is there";
  go.set_value();
  while (Get("parked").kv_tier() != v1::KvTier::HOST) std::this_thread::yield();
  Continue({"parked"});
  ExpectWhole({{"parked", parked}});
}

}  // namespace
}  // namespace fermata
