// Goal: the engine's threads bring every command its answer and every generation its output, neither wait for readers
// nor lose anything at the end, and are woken by commands and timers alone. Method: the real threads over the fake
// model; where the order of things matters, a gate holds the model in mid-step until the test has said all it wants to.

#include "engine/runtime/engine_runtime.h"

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_model.h"
#include "tests/runtime/runtime_harness.h"

namespace fermata {
namespace {

EnqueueCommand Held(EnqueueCommand command) {
  command.hold = true;
  return command;
}

TEST(EngineRuntimeTest, GenerationRunsToItsEndAndItsLogHoldsAllOfIt) {
  RuntimeHarness harness;
  const EnqueueCommand command = Enqueue("a", 40);
  const FakeOutput expected = ExpectedOutput(command.spec, harness.decoder());
  const Answer answer = harness.Call(command);
  ASSERT_TRUE(answer.result().status.ok());
  EXPECT_TRUE(answer.result().created);
  ASSERT_NE(answer.log, nullptr);
  const Output output = ReadToEnd(*answer.log);
  EXPECT_EQ(output.tokens, expected.tokens);
  EXPECT_EQ(output.text, expected.text);
  EXPECT_TRUE(output.notices.empty()) << "undisturbed";
  EXPECT_EQ(output.finish.finish_reason, FinishReason::kLength);
}

TEST(EngineRuntimeTest, ManyGenerationsAtOnceAllFinish) {
  RuntimeHarness harness;
  std::vector<std::future<Answer>> answers;
  for (int i = 0; i < 200; ++i) answers.push_back(harness.Start(Enqueue(absl::StrCat("g", i), 5)));
  for (std::future<Answer>& future : answers) {
    const Answer answer = future.get();
    ASSERT_TRUE(answer.result().status.ok());
    EXPECT_EQ(ReadToEnd(*answer.log).tokens.size(), 5u);
  }
}

TEST(EngineRuntimeTest, PauseIsAcknowledgedAfterTheStepUnderWayAndContinueGoesOn) {
  RuntimeHarness harness({}, /*gated=*/true);
  const EnqueueCommand command = Enqueue("a", 6);
  const Answer enqueued = harness.Call(command);
  harness.gate().Allow(3);
  harness.gate().AwaitArrival();
  std::future<Answer> preempted = harness.Start(PreemptCommand{.ids = Ids("a"), .reason = "hold it"});
  harness.gate().Allow(1);
  const Answer pause = preempted.get();
  EXPECT_EQ(pause.reply.step, 4);
  EXPECT_EQ(pause.result().generation->state, GenerationState::kPaused);
  EXPECT_EQ(pause.result().generation->usage.output_token_count, 4);
  harness.gate().Open();
  // Whatever it is asked meanwhile, no step runs.
  EXPECT_EQ(std::get<EngineInfo>(harness.Call(GetEngineCommand()).reply.result).step, 4);
  harness.Call(ContinueCommand{.ids = Ids("a")});
  const Output output = ReadToEnd(*enqueued.log);
  EXPECT_EQ(output.tokens, ExpectedOutput(command.spec, harness.decoder()).tokens);
  EXPECT_EQ(output.finish.usage.recomputed_token_count, 0);
}

TEST(EngineRuntimeTest, WhatABoundaryGaveIsPublishedWhenTheDeviceHasItsWorkAndWhileItComputes) {
  StepGate before;
  StepGate after;
  FakeModelRunnerOptions model;
  model.calls_launched = true;
  model.before_run = [&](const Batch& batch) {
    before.Pass();
    batch.launched();
    after.Pass();
    return absl::OkStatus();
  };
  RuntimeHarness harness({}, model);
  const EnqueueCommand command = Enqueue("a", 6);
  std::future<Answer> enqueued = harness.Start(command);
  before.AwaitArrival();
  EXPECT_EQ(enqueued.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  before.Allow(1);
  after.AwaitArrival();
  const Answer answer = enqueued.get();  // while the first step computes
  EXPECT_EQ(answer.reply.step, 0);
  before.Open();
  after.Open();
  EXPECT_EQ(ReadToEnd(*answer.log).tokens, ExpectedOutput(command.spec, harness.decoder()).tokens);
}

TEST(EngineRuntimeTest, StepThatFailsBeforeItIsLaunchedLosesNoAnswer) {
  FakeModelRunnerOptions model;
  model.calls_launched = true;
  model.before_run = [](const Batch& batch) {
    if (batch.step == 1) return absl::InternalError("the device is gone");
    batch.launched();
    return absl::OkStatus();
  };
  RuntimeHarness harness({}, model);
  const Answer answer = harness.Call(Enqueue("a", 6));
  ASSERT_TRUE(answer.result().status.ok());
  EXPECT_EQ(ReadToEnd(*answer.log).finish.finish_reason, FinishReason::kError);
}

TEST(EngineRuntimeTest, ReaderWhoseAttachSharesABoundaryWithAPauseLearnsOfIt) {
  RuntimeHarness harness({}, /*gated=*/true);
  harness.Call(Enqueue("a", 6));
  harness.gate().AwaitArrival();
  std::future<Answer> attached = harness.Start(AttachCommand{.id = *GenerationId::Parse("a")});
  std::future<Answer> preempted = harness.Start(PreemptCommand{.ids = Ids("a")});
  harness.gate().Allow(1);
  const Answer answer = attached.get();
  preempted.get();
  // The answer is from before the pause; what the log says now is what the reader is to be told.
  EXPECT_EQ(answer.result().generation->state, GenerationState::kRunning);
  EXPECT_EQ(answer.log->present().state, GenerationState::kPaused);
}

TEST(EngineRuntimeTest, TimerAloneWakesAnIdleEngine) {
  RuntimeHarness harness;
  EnqueueCommand command = Held(Enqueue("a", 6));
  command.spec.timeout = absl::Milliseconds(20);
  const Answer answer = harness.Call(command);
  const Output output = ReadToEnd(*answer.log);
  EXPECT_EQ(output.finish.finish_reason, FinishReason::kDeadline);
  EXPECT_GE(output.finish.finish_time - output.finish.create_time, absl::Milliseconds(20)) << "never early";
}

TEST(EngineRuntimeTest, FullQueueRefusesNewWorkButVerbsAndDetachGoThrough) {
  RuntimeHarness harness({.max_pending_commands = 3}, /*gated=*/true);
  const Answer running = harness.Call(Enqueue("a", 100));
  harness.gate().AwaitArrival();
  std::vector<std::future<Answer>> waiting;
  for (int i = 0; i < 3; ++i) waiting.push_back(harness.Start(Enqueue(absl::StrCat("w", i), 1)));
  const Answer refused = harness.Call(Enqueue("x", 1));
  EXPECT_EQ(refused.sent.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(refused.sent.message().find("3"), absl::string_view::npos) << "names the limit";
  harness.runtime().Detach(GenerationKey{12345});
  std::future<Answer> aborted = harness.Start(AbortCommand{.ids = Ids("a"), .reason = "enough"});
  harness.gate().Open();
  EXPECT_TRUE(aborted.get().result().status.ok());
  EXPECT_EQ(ReadToEnd(*running.log).finish.finish_reason, FinishReason::kAborted);
  for (std::future<Answer>& future : waiting) EXPECT_TRUE(future.get().result().status.ok());
}

TEST(EngineRuntimeTest, ReaderThatNeverReadsStopsNobody) {
  RuntimeHarness harness;
  const Answer slow = harness.Call(Enqueue("slow", 500));
  TokenLog::Cursor cursor = slow.log->Enter(0);  // and never another word
  const Answer quick = harness.Call(Enqueue("quick", 500));
  EXPECT_EQ(ReadToEnd(*quick.log).tokens.size(), 500u);
  EXPECT_EQ(ReadToEnd(*slow.log).tokens.size(), 500u);
  slow.log->Leave(cursor);
}

TEST(EngineRuntimeTest, FailedStepEndsItsGenerationsAndTheEngineGoesOn) {
  std::atomic<bool> broken = true;
  FakeModelRunnerOptions model;
  model.before_run = [&broken](const Batch&) {
    return broken.exchange(false) ? absl::InternalError("no power") : absl::OkStatus();
  };
  RuntimeHarness harness({}, std::move(model));
  const Output failed = ReadToEnd(*harness.Call(Enqueue("a", 5)).log);
  EXPECT_EQ(failed.finish.finish_reason, FinishReason::kError);
  EXPECT_NE(failed.finish.error_message.find("no power"), std::string::npos);
  EXPECT_EQ(ReadToEnd(*harness.Call(Enqueue("b", 5)).log).finish.finish_reason, FinishReason::kLength);
}

TEST(EngineRuntimeTest, ForgottenGenerationsHaveNoLogButReadersInMidStreamKeepTheirs) {
  EngineRuntime::Options options;
  options.engine.max_finished = 0;
  RuntimeHarness harness(options);
  const Answer answer = harness.Call(Enqueue("a", 5));
  EXPECT_EQ(ReadToEnd(*answer.log).tokens.size(), 5u);
  EXPECT_EQ(harness.Call(AttachCommand{.id = *GenerationId::Parse("a")}).result().status.code(),
            absl::StatusCode::kNotFound);
}

TEST(EngineRuntimeTest, DrainRefusesNewcomersAndEndsWhenTheLastOneHas) {
  RuntimeHarness harness({}, /*gated=*/true);
  harness.Call(Held(Enqueue("held", 3)));
  const Answer running = harness.Call(Enqueue("a", 3));
  harness.gate().AwaitArrival();
  harness.runtime().Drain();
  std::future<Answer> late = harness.Start(Enqueue("late", 3));
  EXPECT_FALSE(harness.runtime().AwaitDrained(absl::Milliseconds(1)));
  harness.gate().Open();
  EXPECT_EQ(late.get().result().status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(harness.runtime().AwaitDrained(absl::InfiniteDuration())) << "one that is paused keeps no drain waiting";
  EXPECT_EQ(ReadToEnd(*running.log).finish.finish_reason, FinishReason::kLength);
}

TEST(EngineRuntimeTest, ShutdownFinishesWhatLivesAndTellsItsReaders) {
  RuntimeHarness harness({}, /*gated=*/true);
  const Answer held = harness.Call(Held(Enqueue("held", 1000)));
  const Answer running = harness.Call(Enqueue("running", 1000));
  std::thread ending([&harness] { harness.runtime().Shutdown("closing time"); });
  // The engine's thread stands at the gate until the end has been asked for; then the step under way is the last.
  const auto ignore = [](const Reply*, std::shared_ptr<TokenLog>) {};
  while (harness.runtime().Submit(GetEngineCommand(), ignore).code() != absl::StatusCode::kUnavailable) {
    std::this_thread::yield();
  }
  harness.gate().Open();
  ending.join();
  for (const Answer* answer : {&running, &held}) {
    const GenerationInfo finish = ReadToEnd(*answer->log).finish;
    EXPECT_EQ(finish.finish_reason, FinishReason::kAborted);
    EXPECT_EQ(finish.error_message, "closing time");
  }
  EXPECT_EQ(harness.Call(GetEngineCommand()).sent.code(), absl::StatusCode::kUnavailable);
}

// Whoever sends while the runtime ends gets exactly one answer: a reply, an empty one, or an error from Submit().
TEST(EngineRuntimeTest, CommandsThatRaceWithTheShutdownAreAnsweredOnce) {
  for (int round = 0; round < 20; ++round) {
    RuntimeHarness harness;
    constexpr int kSenders = 3;
    std::atomic<bool> stop = false;
    std::atomic<int64_t> sent = 0;
    std::atomic<int64_t> answers = 0;
    std::vector<std::thread> senders;
    for (int i = 0; i < kSenders; ++i) {
      senders.emplace_back([&] {
        while (!stop) {
          ++sent;
          const absl::Status status =
              harness.runtime().Submit(GetEngineCommand(), [&](const Reply*, std::shared_ptr<TokenLog>) { ++answers; });
          if (!status.ok()) ++answers;
          if (status.code() == absl::StatusCode::kUnavailable) return;
        }
      });
    }
    harness.Call(GetEngineCommand());
    harness.runtime().Shutdown("closing time");
    stop = true;
    for (std::thread& sender : senders) sender.join();
    EXPECT_EQ(answers, sent);
  }
}

}  // namespace
}  // namespace fermata
