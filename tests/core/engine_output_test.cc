// Goal: tokens, text, stops, events, steps and revisions, as reports tell them. Method: a scripted model; reports read
// event by event.

#include <string>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/core/engine_harness.h"

namespace fermata {
namespace {

using ::testing::ElementsAre;
using State = GenerationState;

// Events in short: "QUEUED>RUNNING scheduler", "token 0 'a'", "progress 4+1", "text 'b'", "priority 3".
std::vector<std::string> Summary(const Report& report) {
  std::vector<std::string> lines;
  for (const Event& event : report.events) {
    if (const auto* change = std::get_if<StateChanged>(&event)) {
      lines.push_back(std::string(Name(change->from)) + ">" + std::string(Name(change->to)) + " " +
                      std::string(Name(change->cause)));
    } else if (const auto* token = std::get_if<TokenSampled>(&event)) {
      lines.push_back("token " + std::to_string(token->offset) + " '" + token->text + "'");
    } else if (const auto* text = std::get_if<TextReleased>(&event)) {
      lines.push_back("text '" + text->text + "'");
    } else if (const auto* progress = std::get_if<Progress>(&event)) {
      lines.push_back("progress " + std::to_string(progress->prefilled_token_count) + "+" +
                      std::to_string(progress->output_token_count));
    } else if (const auto* priority = std::get_if<PriorityChanged>(&event)) {
      lines.push_back("priority " + std::to_string(priority->priority));
    }
  }
  return lines;
}

FinishReason ReasonOf(EngineHarness& engine, const std::string& id) { return engine.Get(id).generation->finish_reason; }

TEST(EngineOutputTest, EndsAtTheEndOfGeneration) {
  EngineHarness engine;
  engine.Enqueue("g");
  engine.Script("g", "abc", /*end=*/true);
  engine.RunUntilIdle();
  EXPECT_EQ(ReasonOf(engine, "g"), FinishReason::kStop);
  EXPECT_EQ(engine.Text("g"), "abc");
  EXPECT_EQ(engine.Tokens("g").size(), 4u);  // the end counts as output
  EXPECT_EQ(engine.Get("g").generation->usage.output_token_count, 4);
}

TEST(EngineOutputTest, IgnoreEosRunsToTheLength) {
  EngineHarness engine;
  engine.Enqueue("g", {.max_tokens = 6, .ignore_eos = true});
  engine.Script("g", "abc", /*end=*/true);
  engine.RunUntilIdle();
  EXPECT_EQ(ReasonOf(engine, "g"), FinishReason::kLength);
  EXPECT_EQ(engine.Text("g"), "abcxx");
}

TEST(EngineOutputTest, AStopTokenIsATokenButNoText) {
  EngineHarness engine;
  engine.Enqueue("g", {.stop = {"bc"}, .stop_token_ids = {TokenId{'c'}}});
  engine.Script("g", "abcd");
  engine.RunUntilIdle();
  EXPECT_EQ(ReasonOf(engine, "g"), FinishReason::kStop);
  EXPECT_EQ(engine.Text("g"), "ab");  // what was held for "bc" is text after all
  EXPECT_THAT(engine.Tokens("g"), ElementsAre(TokenId{'a'}, TokenId{'b'}, TokenId{'c'}));
}

TEST(EngineOutputTest, AStopStringOverTokenBordersIsCut) {
  EngineHarness engine;
  engine.Enqueue("g", {.max_tokens = 20, .stop = {"\n\n"}});
  engine.Script("g", "one\ntwo\n\nthree");
  engine.RunUntilIdle();
  EXPECT_EQ(ReasonOf(engine, "g"), FinishReason::kStop);
  EXPECT_EQ(engine.Text("g"), "one\ntwo");
  EXPECT_EQ(engine.Tokens("g").size(), 9u);  // no overshoot
}

TEST(EngineOutputTest, AStopStringWithTheLastTokenIsAStop) {
  EngineHarness engine;
  engine.Enqueue("g", {.max_tokens = 3, .stop = {"c"}});
  engine.Script("g", "abc");
  engine.RunUntilIdle();
  EXPECT_EQ(ReasonOf(engine, "g"), FinishReason::kStop);
  EXPECT_EQ(engine.Text("g"), "ab");
}

TEST(EngineOutputTest, TextHeldBackComesWithTheLastToken) {
  EngineHarness engine;
  engine.Enqueue("g", {.max_tokens = 3, .stop = {"bcd"}});
  engine.Script("g", "abc");
  EXPECT_THAT(Summary(engine.Step()), ElementsAre("QUEUED>RUNNING scheduler", "token 0 'a'", "progress 4+1"));
  EXPECT_THAT(Summary(engine.Step()), ElementsAre("token 1 ''", "progress 0+1"));
  EXPECT_THAT(Summary(engine.Step()), ElementsAre("token 2 'bc'", "progress 0+1", "RUNNING>FINISHED length"));
}

TEST(EngineOutputTest, TextHeldBackComesBeforeAnAbort) {
  EngineHarness engine;
  engine.Enqueue("g");
  engine.Script("g", "a\xE2\x82\xAC");
  engine.Step(3);
  const Report report = engine.Boundary({AbortCommand{.ids = {IdOf("g")}, .reason = "enough"}});
  EXPECT_THAT(Summary(report), ElementsAre("text '\xEF\xBF\xBD'", "RUNNING>FINISHED abort"));
  EXPECT_EQ(engine.Get("g").generation->error_message, "enough");
  EXPECT_EQ(engine.Text("g"), "a\xEF\xBF\xBD");
}

TEST(EngineOutputTest, APauseKeepsWhatIsHeldBack) {
  EngineHarness engine;
  engine.Enqueue("g", {.max_tokens = 4});
  engine.Script("g", "\xF0\x9F\x8E\xB5");
  engine.Step(2);
  EXPECT_THAT(Summary(engine.Boundary({PreemptCommand{.ids = {IdOf("g")}}})), ElementsAre("RUNNING>PAUSED preempt"));
  engine.Continue("g");
  engine.RunUntilIdle();
  EXPECT_EQ(engine.Text("g"), "\xF0\x9F\x8E\xB5");
}

TEST(EngineOutputTest, DisplacementAndAdmissionComeFirstInTheReport) {
  EngineOptions options;
  options.max_running = 1;
  EngineHarness engine(options);
  engine.Enqueue("low", {.priority = 5});
  engine.Step();
  engine.Enqueue("high", {.prompt_tokens = 3, .priority = 1});
  EXPECT_THAT(Summary(engine.Step()),
              ElementsAre("RUNNING>PREEMPTED scheduler", "QUEUED>RUNNING scheduler", "token 0 'x'", "progress 3+1"));
}

TEST(EngineOutputTest, ChunksOfAPromptAreProgressWithoutATokenYet) {
  EngineOptions options;
  options.step_tokens = 3;
  EngineHarness engine(options);
  engine.Enqueue("g", {.prompt_tokens = 5});
  EXPECT_THAT(Summary(engine.Step()), ElementsAre("QUEUED>RUNNING scheduler", "progress 3+0"));
  EXPECT_THAT(Summary(engine.Step()), ElementsAre("token 0 'x'", "progress 2+1"));
}

TEST(EngineOutputTest, RevisionsRiseByOneWithEachReportThatHasEvents) {
  EngineOptions options;
  options.first_revision = 1000;
  EngineHarness engine(options);
  EXPECT_EQ(engine.Boundary().revision, 1000);
  const OperationResult enqueued = engine.Enqueue("g");
  EXPECT_EQ(enqueued.generation->revision, 1001);
  const Report read = engine.Boundary({GetGenerationCommand{.id = IdOf("g")}});
  EXPECT_EQ(read.revision, 1001);
  EXPECT_EQ(read.replies.at(0).revision, 1001);
  const Report step = engine.Step();
  EXPECT_EQ(step.revision, 1002);
  EXPECT_EQ(step.step, 1);
  // The same priority again is no event; another one is.
  EXPECT_EQ(engine.Boundary({SetPriorityCommand{.ids = {IdOf("g")}, .priority = 0}}).revision, 1002);
  EXPECT_EQ(engine.SetPriority("g", 4).generation->revision, 1003);
  EXPECT_EQ(engine.GetEngine().revision, 1003);
}

TEST(EngineOutputTest, AStepIsOneReportWithTheBoundaryFirst) {
  EngineHarness engine;
  EnqueueCommand command;
  command.ticket = Ticket{7};
  command.id = IdOf("g");
  command.spec.prompt.assign(2, TokenId{1});
  const Report report = engine.engine().Step(engine.now(), {command}, engine.runner());
  EXPECT_THAT(Summary(report),
              ElementsAre("NONE>QUEUED enqueue", "QUEUED>RUNNING scheduler", "token 0 'x'", "progress 2+1"));
  ASSERT_EQ(report.replies.size(), 1u);
  EXPECT_EQ(report.replies[0].ticket, Ticket{7});
  EXPECT_EQ(report.replies[0].step, 0);  // it took effect before the step
  EXPECT_EQ(report.replies[0].revision, report.revision);
  EXPECT_EQ(report.step, 1);
}

TEST(EngineOutputTest, TheAcknowledgedStepSplitsTheTokens) {
  EngineHarness engine;
  engine.Enqueue("g", {.max_tokens = 20});
  engine.Step(5);
  const Report pause = engine.Boundary({PreemptCommand{.ids = {IdOf("g")}}});
  EXPECT_EQ(pause.replies.at(0).step, 5);
  const auto& change = std::get<StateChanged>(pause.events.at(0));
  ASSERT_TRUE(change.info != nullptr);
  EXPECT_EQ(change.info->usage.output_token_count, 5);
  EXPECT_EQ(change.info->step, 5);
  EXPECT_EQ(change.info->revision, pause.revision);
}

TEST(EngineOutputTest, LogprobsAreHandedThroughWhereAsked) {
  EngineHarness engine;
  for (const char* id : {"with", "without"}) {
    EnqueueCommand command;
    command.id = IdOf(id);
    command.spec.prompt.assign(1, TokenId{1});
    command.spec.sampling.logprobs = std::string(id) == "with" ? 0 : -1;
    engine.Boundary({command});
  }
  int with = 0;
  for (const Event& event : engine.Step().events) {
    if (const auto* token = std::get_if<TokenSampled>(&event)) with += token->logprobs.has_value();
  }
  EXPECT_EQ(with, 1);
}

TEST(EngineOutputTest, PrepareAndCompleteAreTheHalvesOfAStep) {
  EngineHarness harness;
  harness.Enqueue("g");
  Engine& engine = harness.engine();
  const Batch* batch = engine.Prepare(harness.now());
  ASSERT_NE(batch, nullptr);
  EXPECT_EQ(batch->step, 1);
  EXPECT_EQ(engine.CheckInvariants(), absl::OkStatus());
  ASSERT_EQ(batch->slices.size(), 1u);
  EXPECT_EQ(batch->slices[0].prompt_token_count, 4);
  EXPECT_EQ(batch->slices[0].blocks.size(), 1u);
  StepOutput output;
  ASSERT_TRUE(harness.runner().Run(*batch, &output).ok());
  const Report report = engine.Complete(harness.now(), absl::OkStatus(), output);
  EXPECT_THAT(Summary(report), ElementsAre("QUEUED>RUNNING scheduler", "token 0 'x'", "progress 4+1"));
  harness.Abort("g");
  EXPECT_EQ(engine.Prepare(harness.now()), nullptr);
}

}  // namespace
}  // namespace fermata
