// Goal: what a person and what a program see of a stream. Method: hand the printer the messages of a stream with a
// pause in it, and compare both of its outputs.

#include "tools/ctl/stream_printer.h"

#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fermata::ctl {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

v1::GenerateResponse Accepted() {
  v1::GenerateResponse response;
  response.mutable_accepted()->set_generation_id("story");
  response.mutable_accepted()->set_prompt_token_count(31);
  response.mutable_accepted()->set_state(v1::Generation::QUEUED);
  return response;
}

v1::GenerateResponse Chunk(const std::string& text) {
  v1::GenerateResponse response;
  response.mutable_chunk()->add_token_ids(1);
  response.mutable_chunk()->set_text(text);
  return response;
}

v1::GenerateResponse Notice(v1::Generation::State state, const std::string& reason) {
  v1::GenerateResponse response;
  response.mutable_notice()->set_state(state);
  response.mutable_notice()->set_step(7);
  response.mutable_notice()->set_reason(reason);
  return response;
}

v1::GenerateResponse Finish(v1::Generation::FinishReason reason, const std::string& message = "") {
  v1::GenerateResponse response;
  response.mutable_finish()->set_finish_reason(reason);
  response.mutable_finish()->set_step(9);
  response.mutable_finish()->set_error_message(message);
  v1::Usage& usage = *response.mutable_finish()->mutable_usage();
  usage.set_prompt_token_count(31);
  usage.set_prefilled_token_count(31);
  usage.set_output_token_count(2);
  usage.set_pause_count(1);
  usage.mutable_paused_duration()->set_seconds(3);
  return response;
}

class StreamPrinterTest : public ::testing::Test {
 protected:
  void PrintAll(bool json, std::initializer_list<v1::GenerateResponse> responses) {
    Output output(json, results_, notices_);
    StreamPrinter printer(output);
    for (const v1::GenerateResponse& response : responses) printer.Print(response);
    outcome_ = printer.outcome();
  }

  std::ostringstream results_, notices_;
  absl::Status outcome_;
};

TEST_F(StreamPrinterTest, ResultsAreTheTextAloneAndEndWithALineBreak) {
  PrintAll(false, {Accepted(), Chunk("The "), Notice(v1::Generation::PAUSED, "preempt"), Chunk(""), Chunk("sea"),
                   Finish(v1::Generation::LENGTH)});
  EXPECT_EQ(results_.str(), "The sea\n");
  EXPECT_TRUE(outcome_.ok()) << outcome_;
}

TEST_F(StreamPrinterTest, NoticesTellOfThePauseAndTheUsage) {
  PrintAll(false, {Accepted(), Chunk("The "), Notice(v1::Generation::PAUSED, "preempt"), Finish(v1::Generation::STOP)});
  EXPECT_THAT(notices_.str(), HasSubstr("[story: 31 prompt tokens]"));
  EXPECT_THAT(notices_.str(), HasSubstr("[PAUSED at step 7: preempt]"));
  EXPECT_THAT(notices_.str(),
              HasSubstr("[STOP at step 9: 31 prompt tokens, 31 computed, 0 recomputed; 2 output tokens; "
                        "paused once for 3s]"));
}

TEST_F(StreamPrinterTest, ARepeatedNoticeIsShownOnce) {
  PrintAll(false, {Accepted(), Notice(v1::Generation::PAUSED, "preempt"), Notice(v1::Generation::PAUSED, "preempt"),
                   Finish(v1::Generation::STOP)});
  const std::string notices = notices_.str();
  EXPECT_EQ(notices.find("PAUSED"), notices.rfind("PAUSED"));
}

TEST_F(StreamPrinterTest, ControlCharactersOfTheModelDoNotReachTheTerminal) {
  PrintAll(false, {Chunk("a\x1b[2Jb\n\tc\n"), Finish(v1::Generation::STOP)});
  EXPECT_EQ(results_.str(), "a?[2Jb\n\tc\n");
}

TEST_F(StreamPrinterTest, JsonIsEveryMessageOnALineOfItsOwnAndNothingElse) {
  PrintAll(true, {Accepted(), Notice(v1::Generation::PAUSED, "a"), Chunk("x\ny"), Finish(v1::Generation::STOP)});
  const std::string results = results_.str();
  EXPECT_EQ(std::count(results.begin(), results.end(), '\n'), 4);
  EXPECT_THAT(results, HasSubstr(R"("text":"x\ny")"));
  EXPECT_THAT(results, HasSubstr(R"("recomputed_token_count":"0")"));
  EXPECT_THAT(results, HasSubstr(R"("finish_reason":"STOP")"));
  EXPECT_EQ(notices_.str(), "");
}

TEST_F(StreamPrinterTest, OutcomeSaysWhyAGenerationDidNotEndByItself) {
  PrintAll(false, {Finish(v1::Generation::ABORTED, "by the operator")});
  EXPECT_EQ(outcome_, absl::AbortedError("by the operator"));
  PrintAll(false, {Finish(v1::Generation::DEADLINE)});
  EXPECT_EQ(outcome_.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(outcome_.message()), Not(HasSubstr("\n")));
  PrintAll(false, {Finish(v1::Generation::ERROR, "no more blocks")});
  EXPECT_EQ(outcome_, absl::InternalError("no more blocks"));
}

TEST_F(StreamPrinterTest, AStreamWithoutAFinishIsAnError) {
  PrintAll(false, {Accepted(), Chunk("x")});
  EXPECT_EQ(outcome_.code(), absl::StatusCode::kUnknown);
}

}  // namespace
}  // namespace fermata::ctl
