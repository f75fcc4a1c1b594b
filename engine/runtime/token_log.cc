#include "engine/runtime/token_log.h"

#include <algorithm>
#include <utility>

namespace fermata {

void TokenLog::Reserve(int64_t max_tokens) {
  const std::lock_guard<std::mutex> lock(mutex_);
  tokens_.reserve(max_tokens);
  text_ends_.reserve(max_tokens);
  steps_.reserve(max_tokens);
}

void TokenLog::AppendToken(TokenId token, absl::string_view text, int64_t step, std::optional<TokenLogprobs> logprobs) {
  const std::lock_guard<std::mutex> lock(mutex_);
  tokens_.push_back(token);
  text_.append(text.data(), text.size());
  text_ends_.push_back(text_.size());
  steps_.push_back(step);
  if (logprobs.has_value()) logprobs_.push_back(*std::move(logprobs));
}

void TokenLog::AppendText(absl::string_view text) {
  const std::lock_guard<std::mutex> lock(mutex_);
  text_.append(text.data(), text.size());
}

void TokenLog::AppendNotice(LogNotice notice) {
  const std::lock_guard<std::mutex> lock(mutex_);
  notices_.push_back({std::move(notice), static_cast<int64_t>(tokens_.size())});
  if (notices_.size() <= kMaxNotices) return;
  notices_.pop_front();
  ++first_notice_;
}

void TokenLog::AppendFinish(GenerationInfo info) {
  const std::lock_guard<std::mutex> lock(mutex_);
  finish_ = LogFinish{std::move(info)};
}

void TokenLog::WakeReaders() {
  std::vector<std::function<void()>> waiting;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    waiting.swap(waiting_);
  }
  for (const std::function<void()>& wake : waiting) wake();
}

TokenLog::Cursor TokenLog::CursorAt(int64_t offset) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {.token = offset,
          .text = offset == 0 ? 0 : text_ends_[offset - 1],
          .notice = first_notice_ + static_cast<int64_t>(notices_.size())};
}

TokenLog::Item TokenLog::Read(Cursor& cursor, std::function<void()> wake) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (cursor.finished) return std::monostate();
  cursor.notice = std::max(cursor.notice, first_notice_);
  const int64_t notice_index = cursor.notice - first_notice_;
  const bool has_notice = notice_index < static_cast<int64_t>(notices_.size());
  const int64_t token_count = static_cast<int64_t>(tokens_.size());
  // Tokens that came before the next notice go before it.
  const int64_t end = has_notice ? notices_[notice_index].token : token_count;
  if (cursor.token < end) return ReadChunk(cursor, end);
  if (has_notice) {
    ++cursor.notice;
    return notices_[notice_index].notice;
  }
  // What was held back is text of no token.
  if (cursor.text < text_.size()) return ReadChunk(cursor, end);
  if (finish_.has_value()) {
    cursor.finished = true;
    return *finish_;
  }
  waiting_.push_back(std::move(wake));
  return std::monostate();
}

LogChunk TokenLog::ReadChunk(Cursor& cursor, int64_t end) const {
  LogChunk chunk;
  end = std::min(end, cursor.token + kMaxChunkTokens);
  chunk.offset = cursor.token;
  chunk.tokens.assign(tokens_.begin() + cursor.token, tokens_.begin() + end);
  if (!logprobs_.empty()) chunk.logprobs.assign(logprobs_.begin() + cursor.token, logprobs_.begin() + end);
  const size_t text_end = end == static_cast<int64_t>(tokens_.size()) ? text_.size() : text_ends_[end - 1];
  chunk.text = text_.substr(cursor.text, text_end - cursor.text);
  chunk.step = steps_.empty() ? 0 : steps_[std::max<int64_t>(end, 1) - 1];
  cursor.token = end;
  cursor.text = text_end;
  return chunk;
}

}  // namespace fermata
