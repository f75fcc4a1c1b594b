// Goal: a report's parts reach those who wait for them in the promised order, and each of them is woken once.
// Method: reports made by hand, a token log's reader and a reply's callback that write down when they are called.

#include "engine/runtime/publisher.h"

#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "engine/core/commands.h"
#include "engine/core/report.h"
#include "engine/runtime/engine_stats.h"
#include "engine/runtime/token_log.h"
#include "gtest/gtest.h"

namespace fermata {
namespace {

constexpr GenerationKey kKey{7};
using Lines = std::vector<std::string>;

class PublisherTest : public ::testing::Test {
 protected:
  ~PublisherTest() override {
    if (!stopped_) publisher_.Stop();
  }

  // Makes the generation known; its log comes with the reply.
  std::shared_ptr<TokenLog> Create() {
    std::promise<std::shared_ptr<TokenLog>> promise;
    Report report = EmptyReport();
    report.events.push_back(StateChanged{kKey, GenerationState::kNone, GenerationState::kRunning, Cause::kEnqueue,
                                         std::make_shared<const GenerationInfo>(Info())});
    report.replies.push_back(ReplyTo(
        publisher_.Expect([&](const Reply*, std::shared_ptr<TokenLog> log) { promise.set_value(std::move(log)); })));
    publisher_.Push(std::move(report), absl::UnixEpoch(), absl::ZeroDuration());
    publisher_.Flush();
    return promise.get_future().get();
  }

  Report EmptyReport() {
    Report report;
    report.revision = ++revision_;
    return report;
  }

  Report TokenReport(int64_t offset) {
    Report report = EmptyReport();
    report.step = offset + 1;
    report.events.push_back(TokenSampled{kKey, offset, TokenId{1}, "a", std::nullopt});
    report.events.push_back(Progress{.key = kKey, .output_token_count = 1});
    return report;
  }

  static GenerationInfo Info() {
    GenerationInfo info;
    info.key = kKey;
    info.state = GenerationState::kRunning;
    return info;
  }

  static Reply ReplyTo(Ticket ticket) {
    Reply reply;
    reply.ticket = ticket;
    reply.result = std::vector<OperationResult>{{.status = absl::OkStatus(), .generation = Info()}};
    return reply;
  }

  void Push(Report report) { publisher_.Push(std::move(report), absl::UnixEpoch(), absl::Milliseconds(1)); }

  void Note(const std::string& line) {
    const std::lock_guard<std::mutex> lock(mutex_);
    lines_.push_back(line);
  }

  Lines lines() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return lines_;
  }

  EngineStats stats_;
  int64_t revision_ = 0;
  bool stopped_ = false;  // by the test
  Publisher publisher_{stats_, /*revision=*/0, /*observer=*/nullptr};

 private:
  std::mutex mutex_;
  Lines lines_;
};

TEST_F(PublisherTest, AcknowledgementsGoBeforeReadersWhoAreWokenOnceForAFlush) {
  const std::shared_ptr<TokenLog> log = Create();
  TokenLog::Cursor cursor = log->Enter(0);
  std::promise<void> woken;
  ASSERT_TRUE(std::holds_alternative<std::monostate>(log->Read(cursor, [&] {
    Note("wake");
    woken.set_value();  // a second time would throw
  })));
  Push(TokenReport(0));
  Report boundary = TokenReport(1);
  boundary.replies.push_back(
      ReplyTo(publisher_.Expect([&](const Reply*, std::shared_ptr<TokenLog>) { Note("reply"); })));
  Push(std::move(boundary));
  EXPECT_EQ(lines(), Lines());  // not before the flush
  publisher_.Flush();
  woken.get_future().wait();
  EXPECT_EQ(lines(), (Lines{"reply", "wake"}));
  const TokenLog::Item item = log->Read(cursor, [] {});
  EXPECT_EQ(std::get<LogChunk>(item).text, "aa");
  log->Leave(cursor);
}

TEST_F(PublisherTest, AReaderThatComesToWaitIsWokenByTheNextReport) {
  const std::shared_ptr<TokenLog> log = Create();
  TokenLog::Cursor cursor = log->Enter(0);
  for (int64_t offset = 0; offset < 50; ++offset) {
    std::promise<void> woken;
    ASSERT_TRUE(std::holds_alternative<std::monostate>(log->Read(cursor, [&] { woken.set_value(); })));
    Push(TokenReport(offset));
    publisher_.Flush();
    woken.get_future().wait();
    const TokenLog::Item item = log->Read(cursor, [] {});
    EXPECT_EQ(std::get<LogChunk>(item).offset, offset);
  }
  log->Leave(cursor);
}

TEST_F(PublisherTest, WhatWasFlushedIsPublishedBeforeTheEnd) {
  const std::shared_ptr<TokenLog> log = Create();
  for (int64_t offset = 0; offset < 100; ++offset) Push(TokenReport(offset));
  publisher_.Flush();
  publisher_.Stop();
  stopped_ = true;
  TokenLog::Cursor cursor = log->Enter(0);
  const TokenLog::Item item = log->Read(cursor, [] {});
  EXPECT_EQ(std::get<LogChunk>(item).tokens.size(), 100u);
  EXPECT_EQ(publisher_.event_log().last_revision(), revision_);
}

}  // namespace
}  // namespace fermata
