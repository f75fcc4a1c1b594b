// Goal: every bound, timer and failure ends in a clear answer and hurts nobody else. Method: small engines, time moved
// by hand.

#include <string>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/engine_harness.h"

namespace fermata {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using State = GenerationState;

std::string Message(const OperationResult& result) { return std::string(result.status.message()); }

TEST(EngineLimitsTest, TooLongForTheContextIsRefusedWithTheNumbers) {
  EngineOptions options;
  options.context_tokens = 32;
  EngineHarness engine(options);
  const OperationResult result = engine.Enqueue("g", {.prompt_tokens = 25, .max_tokens = 8});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(result), AllOf(HasSubstr("context_tokens"), HasSubstr("25"), HasSubstr("33"), HasSubstr("32")));
  EXPECT_TRUE(engine.Enqueue("g", {.prompt_tokens = 24, .max_tokens = 8}).status.ok());
  EXPECT_EQ(engine.Enqueue("most", {.max_tokens = 2147483647}).status.code(), absl::StatusCode::kInvalidArgument);
}

TEST(EngineLimitsTest, TooLongForTheWholePoolIsRefusedAtOnce) {
  EngineOptions options;
  options.block_count = 2;
  EngineHarness engine(options);
  const OperationResult result = engine.Enqueue("g", {.prompt_tokens = 25, .max_tokens = 8});
  EXPECT_EQ(result.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(result), AllOf(HasSubstr("kv_bytes"), HasSubstr("3 KV blocks"), HasSubstr("2")));
}

TEST(EngineLimitsTest, AnEmptyPromptOrNoTokensToMakeIsRefused) {
  EngineHarness engine;
  EXPECT_EQ(engine.Enqueue("g", {.prompt_tokens = 0}).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(engine.Enqueue("g", {.max_tokens = 0}).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(engine.Get("g").status.code(), absl::StatusCode::kNotFound);
}

TEST(EngineLimitsTest, MaxQueuedRefusesNewcomersOnly) {
  EngineOptions options;
  options.max_running = 1;
  options.max_queued = 2;
  EngineHarness engine(options);
  engine.Enqueue("runs", {.max_tokens = 50, .priority = 1});
  engine.Step();
  engine.Enqueue("held", {.hold = true});
  engine.Enqueue("a", {.priority = 1});
  engine.Enqueue("b", {.priority = 1});
  const OperationResult refused = engine.Enqueue("c");
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(refused), HasSubstr("--max_queued=2"));
  // A retry of a known id, a held newcomer and a continue are not new to the queue.
  EXPECT_TRUE(engine.Enqueue("a", {.priority = 1}).status.ok());
  EXPECT_TRUE(engine.Enqueue("held2", {.hold = true}).status.ok());
  EXPECT_EQ(engine.Continue("held").generation->state, State::kQueued);
  // Nor is a displaced one.
  engine.Step();
  EXPECT_EQ(engine.State("runs"), State::kPreempted);
  engine.Continue("held2");
  engine.RunUntilIdle();
  EXPECT_EQ(engine.finished().size(), 5u);
}

TEST(EngineLimitsTest, MaxLiveBoundsAllThatAreNotFinished) {
  EngineOptions options;
  options.max_live = 2;
  EngineHarness engine(options);
  engine.Enqueue("a", {.hold = true});
  engine.Enqueue("b");
  const OperationResult refused = engine.Enqueue("c", {.hold = true});
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(Message(refused), HasSubstr("--max_live=2"));
  engine.RunUntilIdle();
  EXPECT_TRUE(engine.Enqueue("c", {.hold = true}).status.ok());
}

TEST(EngineLimitsTest, DrainingRefusesNewIdsAndGoesOnWithTheRest) {
  EngineHarness engine;
  engine.Enqueue("a");
  engine.Enqueue("held", {.hold = true});
  engine.Boundary({DrainCommand{}});
  EXPECT_EQ(engine.Enqueue("b").status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(engine.Enqueue("a").status.ok());
  EXPECT_TRUE(engine.GetEngine().draining);
  EXPECT_EQ(engine.engine().active_count(), 1);
  engine.RunUntilIdle();
  EXPECT_EQ(engine.engine().active_count(), 0);
  EXPECT_EQ(engine.State("held"), State::kPaused);
}

TEST(EngineLimitsTest, TheTimeoutCountsFromEnqueuePausesIncludedAndIsNeverEarly) {
  EngineHarness engine;
  engine.Enqueue("g", {.max_tokens = 100, .timeout = absl::Seconds(10)});
  const absl::Time due = engine.now() + absl::Seconds(10);
  engine.Step();
  engine.Preempt("g");
  EXPECT_EQ(engine.engine().NextTimer(), due);
  engine.Advance(absl::Seconds(10) - absl::Nanoseconds(1));
  engine.Boundary();
  EXPECT_EQ(engine.State("g"), State::kPaused);
  engine.Advance(absl::Nanoseconds(1));
  engine.Boundary();
  const GenerationInfo info = *engine.Get("g").generation;
  EXPECT_EQ(info.finish_reason, FinishReason::kDeadline);
  EXPECT_THAT(info.error_message, HasSubstr("10s"));
  EXPECT_EQ(engine.GetEngine().device.free_count, engine.GetEngine().device.block_count);
}

TEST(EngineLimitsTest, AFinishEndsTimeoutAndLease) {
  EngineOptions options;
  options.finished_age = absl::InfiniteDuration();
  EngineHarness engine(options);
  engine.Enqueue("g", {.attach_reader = true, .on_disconnect = OnDisconnect::kPause, .timeout = absl::Seconds(5)});
  engine.Step();
  engine.Detach("g");
  engine.Abort("g");
  EXPECT_EQ(engine.engine().NextTimer(), absl::InfiniteFuture());
  engine.Advance(absl::Hours(1));
  EXPECT_TRUE(engine.Boundary().empty());
  EXPECT_EQ(engine.Get("g").generation->finish_reason, FinishReason::kAborted);
}

TEST(EngineLimitsTest, ACommandAtTheSameBoundaryComesBeforeTheTimer) {
  EngineOptions options;
  options.disconnect_lease = absl::Seconds(10);
  EngineHarness engine(options);
  engine.Enqueue("g", {.attach_reader = true, .on_disconnect = OnDisconnect::kPause});
  engine.Step();
  engine.Detach("g");
  engine.Advance(absl::Seconds(10));
  EXPECT_TRUE(engine.Attach("g").status.ok());
  EXPECT_EQ(engine.State("g"), State::kPreempted);
}

TEST(EngineLimitsTest, ADisconnectThatPausesWaitsForAReaderForTheLease) {
  EngineOptions options;
  options.disconnect_lease = absl::Seconds(10);
  EngineHarness engine(options);
  engine.Enqueue("g", {.attach_reader = true, .on_disconnect = OnDisconnect::kPause});
  engine.Attach("g");
  engine.Step();
  engine.Detach("g");
  EXPECT_EQ(engine.State("g"), State::kRunning);  // one reader is left
  engine.Detach("g");
  GenerationInfo info = *engine.Get("g").generation;
  EXPECT_EQ(info.state, State::kPaused);
  EXPECT_TRUE(info.pause.by_disconnect);
  EXPECT_FALSE(info.pause.by_control);
  EXPECT_EQ(info.pause.disconnect_expire_time, engine.now() + absl::Seconds(10));
  engine.Advance(absl::Seconds(10));
  engine.Boundary();
  info = *engine.Get("g").generation;
  EXPECT_EQ(info.finish_reason, FinishReason::kAborted);
  EXPECT_THAT(info.error_message, HasSubstr("--disconnect_lease"));
}

// Judged in one go with what selects by state: the reader that comes ends the pause before that.
TEST(EngineLimitsTest, AReaderThatComesInAnApplyEndsItsPauseForWhatFollows) {
  EngineHarness engine;
  engine.Enqueue("g", {.attach_reader = true, .on_disconnect = OnDisconnect::kPause});
  engine.Step();
  engine.Detach("g");
  ASSERT_EQ(engine.State("g"), State::kPaused);
  EnqueueCommand again = {.id = *GenerationId::Parse("g"), .body_digest = "body", .attach_reader = true};
  PreemptCommand preempt = {.selector = Selector{.states = {State::kPaused}}};
  ApplyCommand apply;
  apply.operations = {again, preempt};
  const Report report = engine.Boundary({apply});
  ASSERT_EQ(report.replies.size(), 1u);
  EXPECT_EQ(std::get<std::vector<OperationResult>>(report.replies[0].result).size(), 1u) << "nobody is paused any more";
  EXPECT_EQ(engine.State("g"), State::kPreempted);
}

TEST(EngineLimitsTest, BothHoldsMustEndUnlessContinueEndsThem) {
  EngineHarness engine;
  engine.Enqueue("g", {.attach_reader = true, .on_disconnect = OnDisconnect::kPause});
  engine.Step();
  engine.Preempt("g");
  engine.Detach("g");
  EXPECT_TRUE(engine.Get("g").generation->pause.by_disconnect);
  EXPECT_EQ(engine.Attach("g").generation->state, State::kPaused);
  EXPECT_FALSE(engine.Get("g").generation->pause.by_disconnect);
  engine.Detach("g");
  EXPECT_EQ(engine.Continue("g").generation->state, State::kPreempted);
  EXPECT_EQ(engine.engine().NextTimer(), absl::InfiniteFuture());
}

TEST(EngineLimitsTest, ADisconnectThatAbortsFreesEverything) {
  EngineHarness engine;
  engine.Enqueue("g", {.max_tokens = 50, .attach_reader = true, .on_disconnect = OnDisconnect::kAbort});
  engine.Step();
  engine.Detach("g");
  EXPECT_EQ(engine.Get("g").generation->finish_reason, FinishReason::kAborted);
  EXPECT_EQ(engine.GetEngine().device.free_count, engine.GetEngine().device.block_count);
  engine.Detach("g");  // late and doubled ones are ignored
  engine.Boundary({DetachCommand{GenerationKey{99}}});
}

TEST(EngineLimitsTest, WithoutEverHavingAReaderThereIsNoDisconnect) {
  EngineHarness engine;
  engine.Enqueue("g", {.on_disconnect = OnDisconnect::kAbort});
  engine.Detach("g");
  EXPECT_EQ(engine.State("g"), State::kQueued);
}

TEST(EngineLimitsTest, AnOffsetBeyondTheTokensSoFarIsOutOfRange) {
  EngineHarness engine;
  engine.Enqueue("g", {.max_tokens = 3, .on_disconnect = OnDisconnect::kAbort});
  engine.Step(2);
  EXPECT_TRUE(engine.Attach("g", 2).status.ok());
  const OperationResult beyond = engine.Attach("g", 3);
  EXPECT_EQ(beyond.status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(Message(beyond), HasSubstr("0 to 2"));
  EXPECT_EQ(engine.Attach("g", -1).status.code(), absl::StatusCode::kOutOfRange);
  engine.Detach("g");  // only one reader was counted
  EXPECT_EQ(engine.State("g"), State::kFinished);
}

TEST(EngineLimitsTest, FinishedOnesAreKeptUpToTheirNumberOldestOutFirst) {
  EngineOptions options;
  options.max_finished = 2;
  EngineHarness engine(options);
  for (const char* id : {"a", "b", "c"}) {
    engine.Enqueue(id, {.attach_reader = true});
    engine.RunUntilIdle();
  }
  EXPECT_EQ(engine.Get("a").status.code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(engine.Get("b").status.ok());
  engine.Detach("a");
  engine.Detach("b");
  EXPECT_EQ(engine.GetEngine().finished_total, 3);
  EXPECT_TRUE(engine.Enqueue("a", {.body = "another"}).created);  // the id is free again
}

TEST(EngineLimitsTest, FinishedOnesAreKeptUpToTheirAge) {
  EngineHarness engine;
  engine.Enqueue("g");
  engine.RunUntilIdle();
  EXPECT_EQ(engine.engine().NextTimer(), engine.now() + absl::Minutes(10));
  engine.Advance(absl::Minutes(10));
  const Report report = engine.Boundary();
  EXPECT_THAT(report.forgotten, ElementsAre(engine.Key("g")));
  EXPECT_EQ(engine.Get("g").status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(engine.GetEngine().count_by_state[static_cast<int>(State::kFinished)], 0);
}

TEST(EngineLimitsTest, NoneKeptMeansForgottenAtTheEndOfTheStep) {
  EngineOptions options;
  options.max_finished = 0;
  EngineHarness engine(options);
  engine.Enqueue("g");
  EXPECT_EQ(engine.Abort("g").generation->state, State::kFinished);
  EXPECT_EQ(engine.Get("g").status.code(), absl::StatusCode::kNotFound);
}

TEST(EngineLimitsTest, AFailedStepEndsWhatWasInItAndNothingElse) {
  EngineOptions options;
  options.max_running = 2;
  EngineHarness engine(options);
  for (const char* id : {"a", "b", "c"}) engine.Enqueue(id);
  engine.Step();
  engine.runner().next_status = absl::InternalError("device lost");
  engine.Step();
  for (const char* id : {"a", "b"}) {
    const GenerationInfo info = *engine.Get(id).generation;
    EXPECT_EQ(info.finish_reason, FinishReason::kError);
    EXPECT_THAT(info.error_message, AllOf(HasSubstr("step 2"), HasSubstr("device lost")));
  }
  engine.RunUntilIdle();
  EXPECT_EQ(engine.Get("c").generation->finish_reason, FinishReason::kLength);
}

TEST(EngineLimitsTest, AFailedRowEndsItsGenerationAlone) {
  EngineHarness engine;
  engine.Enqueue("a");
  engine.Enqueue("b");
  engine.runner().row_errors[engine.Key("a")] = absl::InternalError("logits are not numbers");
  engine.RunUntilIdle();
  EXPECT_EQ(engine.Get("a").generation->finish_reason, FinishReason::kError);
  EXPECT_THAT(engine.Get("a").generation->error_message, HasSubstr("logits are not numbers"));
  EXPECT_EQ(engine.Get("b").generation->finish_reason, FinishReason::kLength);
}

TEST(EngineLimitsTest, PagesOfAListMeetEveryGenerationOnce) {
  EngineHarness engine;
  for (int i = 0; i < 25; ++i) engine.Enqueue("g" + std::to_string(i), {.hold = i % 2 == 0});
  std::vector<std::string> seen;
  ListGenerationsCommand list = {.states = {State::kPaused}, .page_size = 5};
  for (bool more = true; more;) {
    const Report report = engine.Boundary({list});
    const auto& page = std::get<GenerationPage>(report.replies.at(0).result);
    for (const GenerationInfo& info : page.generations) seen.push_back(info.id.value());
    EXPECT_LE(page.generations.size(), 5u);
    more = page.next_after.has_value();
    if (more) list.after = *page.next_after;
  }
  ASSERT_EQ(seen.size(), 13u);
  EXPECT_EQ(seen.front(), "g0");
  EXPECT_EQ(seen.back(), "g24");
}

TEST(EngineLimitsTest, AListLooksAtABoundedNumber) {
  EngineHarness engine;
  std::vector<Command> commands;
  for (int i = 0; i < ListGenerationsCommand::kMaxScanned + 5; ++i) {
    EnqueueCommand command;
    command.id = IdOf("g" + std::to_string(i));
    command.hold = true;
    command.spec.prompt.assign(1, TokenId{1});
    commands.push_back(std::move(command));
  }
  engine.Boundary(std::move(commands));
  const Report report = engine.Boundary({ListGenerationsCommand{.tenant = "nobody"}});
  const auto& page = std::get<GenerationPage>(report.replies.at(0).result);
  EXPECT_TRUE(page.generations.empty());
  EXPECT_EQ(page.next_after, GenerationKey{ListGenerationsCommand::kMaxScanned - 1});
}

}  // namespace
}  // namespace fermata
