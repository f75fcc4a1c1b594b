#include "tests/conformance/stream_reader.h"

#include <algorithm>
#include <chrono>

#include "gtest/gtest.h"

namespace fermata {
namespace {

constexpr std::chrono::seconds kPatience(60);

}  // namespace

StreamReader::StreamReader(v1::InferenceService::Stub& stub, const v1::GenerateRequest& request)
    : reader_(stub.Generate(&context_, request)), thread_([this] { Read(); }) {}

StreamReader::StreamReader(v1::InferenceService::Stub& stub, const v1::AttachRequest& request)
    : reader_(stub.Attach(&context_, request)), thread_([this] { Read(); }) {}

StreamReader::~StreamReader() {
  Cancel();
  thread_.join();
}

void StreamReader::Read() {
  v1::GenerateResponse message;
  while (reader_->Read(&message)) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (message.has_chunk()) {
      const v1::Chunk& chunk = message.chunk();
      tokens_.insert(tokens_.end(), chunk.token_ids().begin(), chunk.token_ids().end());
    }
    messages_.push_back(message);
    changed_.notify_all();
  }
  const grpc::Status status = reader_->Finish();
  const std::lock_guard<std::mutex> lock(mutex_);
  status_ = status;
  ended_ = true;
  changed_.notify_all();
}

template <typename Ready>
void StreamReader::Await(std::unique_lock<std::mutex>& lock, Ready ready, const char* what) {
  const bool in_time = changed_.wait_for(lock, kPatience, [&] { return ended_ || ready(); });
  EXPECT_TRUE(in_time && ready()) << "waited in vain for " << what << "; the stream has "
                                  << (ended_ ? "ended: " + status_.error_message() : "not ended");
}

v1::Accepted StreamReader::AwaitAccepted() {
  std::unique_lock<std::mutex> lock(mutex_);
  Await(
      lock, [this] { return !messages_.empty(); }, "the first message");
  if (messages_.empty()) return {};
  EXPECT_TRUE(messages_.front().has_accepted());
  return messages_.front().accepted();
}

void StreamReader::AwaitTokens(size_t count) {
  std::unique_lock<std::mutex> lock(mutex_);
  Await(
      lock, [&] { return tokens_.size() >= count; }, "tokens");
}

void StreamReader::AwaitNotice(v1::Generation::State state) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto has_notice = [&] {
    return std::any_of(messages_.begin(), messages_.end(), [&](const v1::GenerateResponse& message) {
      return message.has_notice() && message.notice().state() == state;
    });
  };
  Await(lock, has_notice, "a notice");
}

grpc::Status StreamReader::AwaitEnd() {
  std::unique_lock<std::mutex> lock(mutex_);
  Await(
      lock, [this] { return ended_; }, "the end");
  return status_;
}

v1::Finish StreamReader::AwaitFinish() {
  const grpc::Status status = AwaitEnd();
  EXPECT_TRUE(status.ok()) << status.error_message();
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto is_finish = [](const v1::GenerateResponse& message) { return message.has_finish(); };
  EXPECT_EQ(std::count_if(messages_.begin(), messages_.end(), is_finish), 1) << "exactly one finish";
  if (messages_.empty() || !messages_.back().has_finish()) {
    ADD_FAILURE() << "the finish is not the last message";
    return {};
  }
  return messages_.back().finish();
}

std::vector<int32_t> StreamReader::tokens() {
  const std::lock_guard<std::mutex> lock(mutex_);
  int64_t next = -1;
  for (const v1::GenerateResponse& message : messages_) {
    if (!message.has_chunk() || message.chunk().token_ids().empty()) continue;
    if (next >= 0) {
      EXPECT_EQ(message.chunk().offset(), next) << "offsets are consecutive";
    }
    next = message.chunk().offset() + message.chunk().token_ids_size();
  }
  return tokens_;
}

std::string StreamReader::text() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::string text;
  for (const v1::GenerateResponse& message : messages_) text += message.chunk().text();
  return text;
}

std::vector<v1::GenerateResponse> StreamReader::messages() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return messages_;
}

}  // namespace fermata
