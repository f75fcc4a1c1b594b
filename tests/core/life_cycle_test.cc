// Goal: every verb in every state does what the life-cycle table promises: the move, the error, or no change. Method:
// one generation is brought into each state in each way that leads there, then the verb; after every call the engine
// checks its own invariants (see EngineHarness).

#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/engine_harness.h"

namespace fermata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using State = GenerationState;

EngineOptions OneSlot() {
  EngineOptions options;
  options.max_running = 1;
  options.step_tokens = 4;
  return options;
}

// Generation "g" in some state, in an engine with one slot and four tokens a step.
class Situation {
 public:
  explicit Situation(State state) : engine_(OneSlot()) {
    switch (state) {
      case State::kQueued:
        engine_.Enqueue("holder", {.max_tokens = 100});
        engine_.Step();
        engine_.Enqueue("g");
        break;
      case State::kRunning:
        engine_.Enqueue("g");
        engine_.Step(2);
        break;
      case State::kPreempted:
        engine_.Enqueue("g");
        engine_.Step(2);
        engine_.Enqueue("urgent", {.max_tokens = 100, .priority = -1});
        engine_.Step();
        break;
      case State::kPaused:
        engine_.Enqueue("g");
        engine_.Step(2);
        engine_.Preempt("g");
        break;
      case State::kFinished:
        engine_.Enqueue("g");
        engine_.RunUntilIdle();
        break;
      case State::kNone:
        break;
    }
    EXPECT_EQ(Now(), state);
  }

  State Now() {
    const OperationResult result = engine_.Get("g");
    return result.status.ok() ? result.generation->state : State::kNone;
  }

  EngineHarness& engine() { return engine_; }

 private:
  EngineHarness engine_;
};

struct Row {
  State from;
  absl::StatusCode code;
  State to;
};

void ExpectTable(const std::vector<Row>& rows, const std::function<OperationResult(EngineHarness&)>& verb) {
  for (const Row& row : rows) {
    SCOPED_TRACE(Name(row.from));
    Situation situation(row.from);
    const int64_t tokens_before =
        row.from == State::kNone ? 0 : situation.engine().Get("g").generation->usage.output_token_count;
    for (int again = 0; again < 2; ++again) {  // every verb is idempotent
      const OperationResult result = verb(situation.engine());
      EXPECT_EQ(result.status.code(), row.code) << result.status;
      EXPECT_EQ(result.generation.has_value(), result.status.ok());
      if (result.status.ok()) {
        EXPECT_EQ(result.generation->state, row.to);
        EXPECT_EQ(result.generation->usage.output_token_count, tokens_before);
      } else {
        EXPECT_THAT(std::string(result.status.message()), HasSubstr("\"g\""));
      }
      EXPECT_EQ(situation.Now(), row.to);
    }
    situation.engine().Step(3);
  }
}

constexpr absl::StatusCode kOk = absl::StatusCode::kOk;
constexpr absl::StatusCode kFinishedAlready = absl::StatusCode::kFailedPrecondition;
constexpr absl::StatusCode kUnknown = absl::StatusCode::kNotFound;

TEST(LifeCycleTest, PreemptInEveryState) {
  ExpectTable({{State::kQueued, kOk, State::kPaused},
               {State::kRunning, kOk, State::kPaused},
               {State::kPreempted, kOk, State::kPaused},
               {State::kPaused, kOk, State::kPaused},
               {State::kFinished, kFinishedAlready, State::kFinished},
               {State::kNone, kUnknown, State::kNone}},
              [](EngineHarness& engine) { return engine.Preempt("g"); });
}

TEST(LifeCycleTest, ContinueInEveryState) {
  ExpectTable({{State::kQueued, kOk, State::kQueued},
               {State::kRunning, kOk, State::kRunning},
               {State::kPreempted, kOk, State::kPreempted},
               {State::kPaused, kOk, State::kPreempted},
               {State::kFinished, kFinishedAlready, State::kFinished},
               {State::kNone, kUnknown, State::kNone}},
              [](EngineHarness& engine) { return engine.Continue("g"); });
}

TEST(LifeCycleTest, AbortInEveryState) {
  ExpectTable({{State::kQueued, kOk, State::kFinished},
               {State::kRunning, kOk, State::kFinished},
               {State::kPreempted, kOk, State::kFinished},
               {State::kPaused, kOk, State::kFinished},
               {State::kFinished, kOk, State::kFinished},
               {State::kNone, kUnknown, State::kNone}},
              [](EngineHarness& engine) { return engine.Abort("g"); });
}

TEST(LifeCycleTest, SetPriorityInEveryState) {
  ExpectTable({{State::kQueued, kOk, State::kQueued},
               {State::kRunning, kOk, State::kRunning},
               {State::kPreempted, kOk, State::kPreempted},
               {State::kPaused, kOk, State::kPaused},
               {State::kFinished, kFinishedAlready, State::kFinished},
               {State::kNone, kUnknown, State::kNone}},
              [](EngineHarness& engine) { return engine.SetPriority("g", 7); });
}

TEST(LifeCycleTest, EnqueueOfAKnownIdReturnsItInEveryState) {
  ExpectTable({{State::kQueued, kOk, State::kQueued},
               {State::kRunning, kOk, State::kRunning},
               {State::kPreempted, kOk, State::kPreempted},
               {State::kPaused, kOk, State::kPaused},
               {State::kFinished, kOk, State::kFinished}},
              [](EngineHarness& engine) {
                const OperationResult result = engine.Enqueue("g");
                EXPECT_FALSE(result.created);
                return result;
              });
  ExpectTable({{State::kRunning, absl::StatusCode::kAlreadyExists, State::kRunning},
               {State::kFinished, absl::StatusCode::kAlreadyExists, State::kFinished}},
              [](EngineHarness& engine) { return engine.Enqueue("g", {.body = "another"}); });
}

TEST(LifeCycleTest, AttachInEveryState) {
  ExpectTable({{State::kQueued, kOk, State::kQueued},
               {State::kRunning, kOk, State::kRunning},
               {State::kPreempted, kOk, State::kPreempted},
               {State::kPaused, kOk, State::kPaused},  // the hold is the control plane's
               {State::kFinished, kOk, State::kFinished},
               {State::kNone, kUnknown, State::kNone}},
              [](EngineHarness& engine) { return engine.Attach("g"); });
}

TEST(LifeCycleTest, AHeldNewcomerIsPausedAndThenQueued) {
  EngineHarness engine;
  const OperationResult held = engine.Enqueue("g", {.hold = true});
  EXPECT_TRUE(held.created);
  EXPECT_EQ(held.generation->state, State::kPaused);
  EXPECT_TRUE(held.generation->pause.by_control);
  EXPECT_FALSE(engine.engine().HasWork());
  EXPECT_EQ(engine.Continue("g").generation->state, State::kQueued);
  engine.RunUntilIdle();
  EXPECT_EQ(engine.State("g"), State::kFinished);
}

TEST(LifeCycleTest, AQueuedOneThatWasPausedIsQueuedAgain) {
  Situation situation(State::kQueued);
  EngineHarness& engine = situation.engine();
  engine.Preempt("g");
  EXPECT_EQ(engine.Continue("g").generation->state, State::kQueued);
}

TEST(LifeCycleTest, PausedInMidPrefillKeepsItsChunks) {
  EngineHarness engine(OneSlot());
  engine.Enqueue("g", {.prompt_tokens = 10, .max_tokens = 3});
  engine.Step(2);
  const OperationResult paused = engine.Preempt("g");
  EXPECT_EQ(paused.generation->usage.prefilled_token_count, 8);
  EXPECT_EQ(paused.generation->usage.output_token_count, 0);
  EXPECT_EQ(paused.generation->kv_tier, KvTier::kDevice);
  EXPECT_FALSE(engine.engine().HasWork());
  EXPECT_EQ(engine.Continue("g").generation->state, State::kPreempted);
  engine.Step();
  EXPECT_EQ(engine.runner().rows.at(0).first_position, 8);
  EXPECT_EQ(engine.runner().rows.at(0).token_count, 2);
  engine.RunUntilIdle();
  EXPECT_EQ(engine.Get("g").generation->usage.prefilled_token_count, 10);
  EXPECT_EQ(engine.Get("g").generation->usage.recomputed_token_count, 0);
}

TEST(LifeCycleTest, NoTokenComesWhilePausedAndTheRestFollows) {
  EngineHarness engine;
  engine.Enqueue("g", {.max_tokens = 10});
  engine.Enqueue("other", {.max_tokens = 100});
  engine.Script("g", "abcdefghij");
  engine.Step(4);
  EXPECT_EQ(engine.Preempt("g").generation->usage.output_token_count, 4);
  const EngineInfo held = engine.GetEngine();
  EXPECT_EQ(held.device.paused_count, 1);
  engine.Step(20);
  EXPECT_EQ(engine.Text("g"), "abcd");
  EXPECT_EQ(engine.Batch(), std::vector<std::string>{"other"});
  engine.Continue("g");
  engine.RunUntilIdle();
  EXPECT_EQ(engine.Text("g"), "abcdefghij");
  const GenerationInfo info = *engine.Get("g").generation;
  EXPECT_EQ(info.usage.prefilled_token_count, info.usage.prompt_token_count);
  EXPECT_EQ(info.usage.recomputed_token_count, 0);
  EXPECT_EQ(info.usage.pause_count, 1);
}

TEST(LifeCycleTest, ADoubledIdInOneCommandIsAnsweredTwice) {
  EngineHarness engine;
  engine.Enqueue("g");
  const Report report =
      engine.Boundary({PreemptCommand{.ids = {IdOf("g"), IdOf("unknown"), IdOf("g")}, .reason = "later"}});
  const auto& results = std::get<std::vector<OperationResult>>(report.replies.at(0).result);
  ASSERT_EQ(results.size(), 3u);
  EXPECT_TRUE(results[0].status.ok());
  EXPECT_EQ(results[1].status.code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(results[2].status.ok());
  EXPECT_EQ(results[2].generation->pause.reason, "later");
  EXPECT_EQ(results[2].generation->usage.pause_count, 1);
}

TEST(LifeCycleTest, DurationsAreCountedByState) {
  EngineHarness engine(OneSlot());
  engine.Enqueue("g", {.max_tokens = 20});
  engine.Advance(absl::Seconds(1));  // queued
  engine.Step();
  engine.Advance(absl::Seconds(2));  // running
  engine.Enqueue("urgent", {.max_tokens = 1, .priority = -1});
  engine.Step();
  engine.Advance(absl::Seconds(4));  // preempted
  engine.Preempt("g");
  engine.Advance(absl::Seconds(8));  // paused
  const GenerationInfo info = *engine.Get("g").generation;
  EXPECT_EQ(info.usage.queued_duration, absl::Seconds(5));
  EXPECT_EQ(info.usage.running_duration, absl::Seconds(2));
  EXPECT_EQ(info.usage.paused_duration, absl::Seconds(8));
  EXPECT_EQ(info.usage.preemption_count, 1);
  EXPECT_EQ(info.start_time, info.create_time + absl::Seconds(1));
  engine.Abort("g");
  engine.Advance(absl::Seconds(16));
  const GenerationInfo finished = *engine.Get("g").generation;
  EXPECT_EQ(finished.usage.paused_duration, absl::Seconds(8));
  EXPECT_EQ(finished.finish_time, finished.create_time + absl::Seconds(15));
}

TEST(LifeCycleTest, CountersFollowEveryMove) {
  EngineHarness engine(OneSlot());
  engine.Enqueue("a", {.prompt_tokens = 4, .max_tokens = 28});
  engine.Step();
  engine.Enqueue("b", {.prompt_tokens = 4, .max_tokens = 4, .priority = -1});
  engine.Step();
  engine.Enqueue("held", {.hold = true});
  engine.Enqueue("waits", {.priority = 9});
  EngineInfo info = engine.GetEngine();
  EXPECT_EQ(info.count_by_state[static_cast<int>(State::kRunning)], 1);
  EXPECT_EQ(info.count_by_state[static_cast<int>(State::kPreempted)], 1);
  EXPECT_EQ(info.count_by_state[static_cast<int>(State::kPaused)], 1);
  EXPECT_EQ(info.count_by_state[static_cast<int>(State::kQueued)], 1);
  EXPECT_EQ(info.device.running_count, 1);
  EXPECT_EQ(info.device.preempted_count, 1);
  EXPECT_EQ(info.device.free_count, info.device.block_count - 2);
  EXPECT_EQ(info.prefilled_token_total, 8);
  EXPECT_EQ(info.output_token_total, 2);
  EXPECT_EQ(info.preemption_total, 1);
  EXPECT_EQ(info.step, 2);
  EXPECT_EQ(engine.engine().active_count(), 3);
  engine.Boundary({AbortAllCommand{"the end"}});
  info = engine.GetEngine();
  EXPECT_EQ(info.count_by_state[static_cast<int>(State::kFinished)], 4);
  EXPECT_EQ(info.finished_total, 4);
  EXPECT_EQ(info.device.free_count, info.device.block_count);
  EXPECT_EQ(engine.Get("held").generation->error_message, "the end");
}

}  // namespace
}  // namespace fermata
