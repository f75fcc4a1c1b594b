#include "engine/runtime/token_log.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace fermata {

bool TokenLog::AppendToken(TokenId token, absl::string_view text, int64_t step, std::optional<TokenLogprobs> logprobs) {
  const std::lock_guard<std::mutex> lock(mutex_);
  tokens_.push_back(token);
  text_.append(text.data(), text.size());
  text_ends_.push_back(text_.size());
  steps_.push_back(step);
  if (logprobs.has_value()) {
    // Those of tokens from before a restart are not known.
    logprobs_.resize(tokens_.size() - 1, {.logprob = std::numeric_limits<float>::quiet_NaN(), .top = {}});
    logprobs_.push_back(*std::move(logprobs));
  }
  return !waiting_.empty();
}

bool TokenLog::AppendText(absl::string_view text) {
  const std::lock_guard<std::mutex> lock(mutex_);
  text_.append(text.data(), text.size());
  return !waiting_.empty();
}

bool TokenLog::AppendState(LogNotice change, bool announced) {
  const std::lock_guard<std::mutex> lock(mutex_);
  present_ = change;
  if (!announced) return false;
  notices_.push_back({std::move(change), static_cast<int64_t>(tokens_.size())});
  if (notices_.size() > kMaxNotices) {
    notices_.pop_front();
    ++first_notice_;
  }
  return !waiting_.empty();
}

bool TokenLog::AppendFinish(GenerationInfo info) {
  const std::lock_guard<std::mutex> lock(mutex_);
  present_ = {info.state, info.step, ""};
  finish_ = LogFinish{std::move(info)};
  // Nothing grows any more, and finished generations are kept for long.
  tokens_.shrink_to_fit();
  text_ends_.shrink_to_fit();
  steps_.shrink_to_fit();
  logprobs_.shrink_to_fit();
  text_.shrink_to_fit();
  return !waiting_.empty();
}

void TokenLog::Close() {
  const std::lock_guard<std::mutex> lock(mutex_);
  closed_ = true;
}

void TokenLog::WakeReaders() {
  std::map<int64_t, std::function<void()>> waiting;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting.swap(waiting_);
  }
  for (const auto& [reader, wake] : waiting) wake();
}

TokenLog::Cursor TokenLog::Enter(int64_t offset) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {.reader = next_reader_++,
          .token = offset,
          .text = offset == 0 ? 0 : text_ends_[offset - 1],
          .notice = first_notice_ + static_cast<int64_t>(notices_.size())};
}

TokenLog::Item TokenLog::Read(Cursor& cursor, std::function<void()> wake) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (cursor.finished) return std::monostate();
  cursor.notice = std::max(cursor.notice, first_notice_);
  const int64_t notice_index = cursor.notice - first_notice_;
  const bool has_notice = notice_index < static_cast<int64_t>(notices_.size());
  // Tokens that came before the next notice go before it.
  const int64_t end = has_notice ? notices_[notice_index].token : static_cast<int64_t>(tokens_.size());
  if (cursor.token < end) return ReadTokens(cursor, end);
  if (has_notice) {
    ++cursor.notice;
    return notices_[notice_index].notice;
  }
  if (cursor.text < text_.size()) return ReadHeldText(cursor);
  if (finish_.has_value()) {
    cursor.finished = true;
    return *finish_;
  }
  if (closed_) {
    cursor.finished = true;
    return LogClosed();
  }
  waiting_[cursor.reader] = std::move(wake);
  return std::monostate();
}

void TokenLog::Leave(const Cursor& cursor) {
  const std::lock_guard<std::mutex> lock(mutex_);
  waiting_.erase(cursor.reader);
}

LogNotice TokenLog::present() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return present_;
}

LogChunk TokenLog::ReadTokens(Cursor& cursor, int64_t end) const {
  end = std::min(end, cursor.token + kMaxChunkTokens);
  LogChunk chunk;
  chunk.offset = cursor.token;
  chunk.tokens.assign(tokens_.begin() + cursor.token, tokens_.begin() + end);
  if (!logprobs_.empty()) chunk.logprobs.assign(logprobs_.begin() + cursor.token, logprobs_.begin() + end);
  chunk.text = text_.substr(cursor.text, text_ends_[end - 1] - cursor.text);
  chunk.step = steps_[end - 1];
  cursor.token = end;
  cursor.text = text_ends_[end - 1];
  return chunk;
}

LogChunk TokenLog::ReadHeldText(Cursor& cursor) const {
  LogChunk chunk;
  chunk.offset = cursor.token;
  chunk.text = text_.substr(cursor.text);
  chunk.step = steps_.empty() ? 0 : steps_.back();
  cursor.text = text_.size();
  return chunk;
}

}  // namespace fermata
