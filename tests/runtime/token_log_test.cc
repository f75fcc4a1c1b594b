// Goal: every reader of a generation's output gets all of it, in order and always the same, whatever the others do.
// Method: one log, appended to by hand; readers as plain cursors, and one test with threads (for the thread sanitizer).

#include "engine/runtime/token_log.h"

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace fermata {
namespace {

// Reads all there is and writes it down: "0:ab" for a chunk at offset 0, "PAUSED@3" for a notice, "end" for the finish.
std::vector<std::string> ReadAll(
    TokenLog& log, TokenLog::Cursor& cursor, std::function<void()> wake = [] {}) {
  std::vector<std::string> read;
  while (true) {
    const TokenLog::Item item = log.Read(cursor, wake);
    if (const auto* chunk = std::get_if<LogChunk>(&item)) {
      read.push_back(absl::StrCat(chunk->offset, ":", chunk->text));
    } else if (const auto* notice = std::get_if<LogNotice>(&item)) {
      read.push_back(absl::StrCat(std::string(Name(notice->state)), "@", notice->step));
    } else if (std::holds_alternative<LogFinish>(item)) {
      read.push_back("end");
    } else {
      return read;
    }
  }
}

GenerationInfo FinishedInfo() {
  GenerationInfo info;
  info.state = GenerationState::kFinished;
  info.finish_reason = FinishReason::kLength;
  return info;
}

using Lines = std::vector<std::string>;

TEST(TokenLogTest, TokensThatWaitAreReadAsOneChunk) {
  TokenLog log;
  TokenLog::Cursor cursor = log.Enter(0);
  log.AppendToken(TokenId{7}, "a", 1, std::nullopt);
  log.AppendToken(TokenId{8}, "", 2, std::nullopt);
  log.AppendToken(TokenId{9}, "bc", 3, std::nullopt);
  const TokenLog::Item item = log.Read(cursor, [] {});
  const auto& chunk = std::get<LogChunk>(item);
  EXPECT_EQ(chunk.offset, 0);
  EXPECT_EQ(chunk.tokens, (std::vector<TokenId>{TokenId{7}, TokenId{8}, TokenId{9}}));
  EXPECT_EQ(chunk.text, "abc");
  EXPECT_EQ(chunk.step, 3);
  EXPECT_TRUE(chunk.logprobs.empty());
}

TEST(TokenLogTest, AppendsSayWhetherAReaderWaits) {
  TokenLog log;
  EXPECT_FALSE(log.AppendToken(TokenId{1}, "a", 1, std::nullopt));
  TokenLog::Cursor cursor = log.Enter(0);
  EXPECT_FALSE(log.AppendToken(TokenId{2}, "b", 2, std::nullopt));  // it has something to read, so it does not wait
  ReadAll(log, cursor);
  EXPECT_TRUE(log.AppendToken(TokenId{3}, "c", 3, std::nullopt));
  EXPECT_TRUE(log.AppendText("d"));
  EXPECT_TRUE(log.AppendState({GenerationState::kPaused, 3, "preempt"}, true));
  EXPECT_FALSE(log.AppendState({GenerationState::kRunning, 3, "scheduler"}, false));  // nothing to read
  EXPECT_TRUE(log.AppendFinish(FinishedInfo()));
  log.WakeReaders();
  EXPECT_FALSE(log.AppendText("e"));
  log.Leave(cursor);
}

TEST(TokenLogTest, PauseNoticeFollowsTheLastTokenBeforeIt) {
  TokenLog log;
  TokenLog::Cursor cursor = log.Enter(0);
  log.AppendToken(TokenId{1}, "a", 1, std::nullopt);
  log.AppendState({GenerationState::kPaused, 1, "preempt"}, true);
  log.AppendState({GenerationState::kPreempted, 1, "continue"}, true);
  log.AppendToken(TokenId{2}, "b", 2, std::nullopt);
  EXPECT_EQ(ReadAll(log, cursor), (Lines{"0:a", "PAUSED@1", "PREEMPTED@1", "1:b"}));
}

TEST(TokenLogTest, LateReaderGetsTheSameTokensButNoOldNotices) {
  TokenLog log;
  log.AppendToken(TokenId{1}, "a", 1, std::nullopt);
  log.AppendState({GenerationState::kPaused, 1, "preempt"}, true);
  TokenLog::Cursor cursor = log.Enter(0);
  EXPECT_EQ(log.present().state, GenerationState::kPaused);
  EXPECT_EQ(ReadAll(log, cursor), (Lines{"0:a"}));
}

TEST(TokenLogTest, ReplayFromEveryOffsetGivesTheRestOfTheText) {
  TokenLog log;
  const std::string pieces[] = {"x", "", "yz", "\xE2\x82\xAC", ""};
  std::string rest;
  for (int i = 0; i < 5; ++i) {
    log.AppendToken(TokenId{i}, pieces[i], i + 1, std::nullopt);
    rest += pieces[i];
  }
  log.AppendText("held");
  log.AppendFinish(FinishedInfo());
  rest += "held";
  for (int64_t offset = 0; offset <= 5; ++offset) {
    TokenLog::Cursor cursor = log.Enter(offset);
    const Lines read = ReadAll(log, cursor);
    // Held-back text is a chunk of its own, so that the text of the tokens is the same in every replay.
    const Lines tail = {"5:held", "end"};
    ASSERT_GE(read.size(), 2u);
    EXPECT_EQ(Lines(read.end() - 2, read.end()), tail);
    if (offset == 5) break;
    EXPECT_EQ(read[0], absl::StrCat(offset, ":", rest.substr(0, rest.size() - 4)));
    rest.erase(0, pieces[offset].size());
  }
}

TEST(TokenLogTest, NothingIsReadAfterTheFinish) {
  TokenLog log;
  log.AppendFinish(FinishedInfo());
  TokenLog::Cursor cursor = log.Enter(0);
  EXPECT_EQ(ReadAll(log, cursor), (Lines{"end"}));
  int wakes = 0;
  EXPECT_EQ(ReadAll(log, cursor, [&] { ++wakes; }), Lines());
  log.WakeReaders();
  EXPECT_EQ(wakes, 0);
}

TEST(TokenLogTest, ReaderIsWokenOnceForEachWait) {
  TokenLog log;
  TokenLog::Cursor cursor = log.Enter(0);
  int wakes = 0;
  ReadAll(log, cursor, [&] { ++wakes; });
  log.WakeReaders();
  log.WakeReaders();
  EXPECT_EQ(wakes, 1);
  ReadAll(log, cursor, [&] { ++wakes; });
  log.WakeReaders();
  EXPECT_EQ(wakes, 2);
}

TEST(TokenLogTest, ReaderThatLeftIsNotWokenAndLeavesNothingBehind) {
  TokenLog log;
  const auto held = std::make_shared<int>(0);
  TokenLog::Cursor cursor = log.Enter(0);
  ReadAll(log, cursor, [held] { ++*held; });
  EXPECT_GT(held.use_count(), 1);
  log.Leave(cursor);
  EXPECT_EQ(held.use_count(), 1);
  log.WakeReaders();
  EXPECT_EQ(*held, 0);
}

TEST(TokenLogTest, LongOutputIsCutIntoSeveralChunks) {
  TokenLog log;
  for (int i = 0; i < TokenLog::kMaxChunkTokens + 1; ++i) {
    log.AppendToken(TokenId{i}, "t", i + 1, TokenLogprobs{-1.0f, {}});
  }
  TokenLog::Cursor cursor = log.Enter(0);
  const auto first = std::get<LogChunk>(log.Read(cursor, [] {}));
  const auto second = std::get<LogChunk>(log.Read(cursor, [] {}));
  EXPECT_EQ(static_cast<int64_t>(first.tokens.size()), TokenLog::kMaxChunkTokens);
  EXPECT_EQ(first.logprobs.size(), first.tokens.size());
  EXPECT_EQ(second.offset, TokenLog::kMaxChunkTokens);
  EXPECT_EQ(second.tokens.size(), 1u);
}

TEST(TokenLogTest, ReaderThatIsFarBehindMissesOldNoticesButNoToken) {
  TokenLog log;
  TokenLog::Cursor cursor = log.Enter(0);
  const int pauses = static_cast<int>(TokenLog::kMaxNotices) + 10;
  std::string text;
  for (int i = 0; i < pauses; ++i) {
    log.AppendToken(TokenId{i}, "t", i + 1, std::nullopt);
    log.AppendState({GenerationState::kPaused, i + 1, "preempt"}, true);
  }
  int64_t tokens = 0;
  size_t notices = 0;
  while (true) {
    const TokenLog::Item item = log.Read(cursor, [] {});
    if (std::holds_alternative<std::monostate>(item)) break;
    if (const auto* chunk = std::get_if<LogChunk>(&item)) {
      EXPECT_EQ(chunk->offset, tokens);
      tokens += static_cast<int64_t>(chunk->tokens.size());
    } else {
      ++notices;
    }
  }
  EXPECT_EQ(tokens, pauses);
  EXPECT_EQ(notices, TokenLog::kMaxNotices);
}

// One thread appends; readers come at different times, at different offsets, and one goes in the middle.
TEST(TokenLogTest, ReadersOnOtherThreadsMissNoWakeUp) {
  constexpr int kTokens = 2000;
  TokenLog log;
  const auto read_to_end = [&log](int64_t give_up_after) {
    std::mutex mutex;
    std::condition_variable woken;
    bool awake = true;
    TokenLog::Cursor cursor = log.Enter(0);
    int64_t tokens = 0;
    while (!cursor.finished && tokens < give_up_after) {
      {
        std::unique_lock<std::mutex> lock(mutex);
        woken.wait(lock, [&] { return awake; });
        awake = false;
      }
      while (tokens < give_up_after) {
        const TokenLog::Item item = log.Read(cursor, [&] {
          const std::lock_guard<std::mutex> lock(mutex);
          awake = true;
          woken.notify_one();
        });
        if (const auto* chunk = std::get_if<LogChunk>(&item)) tokens += static_cast<int64_t>(chunk->tokens.size());
        if (std::holds_alternative<std::monostate>(item)) break;
      }
    }
    return tokens;
  };
  std::atomic<int64_t> totals[3] = {};
  std::vector<std::thread> readers;
  for (std::atomic<int64_t>& total : totals) readers.emplace_back([&] { total = read_to_end(kTokens + 1); });
  readers.emplace_back([&] { read_to_end(10); });
  for (int i = 0; i < kTokens; ++i) {
    log.AppendToken(TokenId{i}, "t", i + 1, std::nullopt);
    log.WakeReaders();
  }
  log.AppendFinish(FinishedInfo());
  log.WakeReaders();
  for (std::thread& reader : readers) reader.join();
  for (const std::atomic<int64_t>& total : totals) EXPECT_EQ(total, kTokens);
}

}  // namespace
}  // namespace fermata
