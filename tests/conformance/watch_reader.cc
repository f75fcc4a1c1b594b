#include "tests/conformance/watch_reader.h"

#include <algorithm>
#include <chrono>

#include "gtest/gtest.h"

namespace fermata {
namespace {

constexpr std::chrono::seconds kPatience(60);

int64_t RevisionOf(const v1::WatchResponse& message) {
  return message.has_batch() ? message.batch().revision() : message.bookmark().revision();
}

}  // namespace

WatchReader::WatchReader(v1::ControlService::Stub& stub, const v1::WatchRequest& request)
    : reader_(stub.Watch(&context_, request)), thread_([this] { Read(); }) {}

WatchReader::~WatchReader() {
  context_.TryCancel();
  thread_.join();
}

void WatchReader::Read() {
  v1::WatchResponse message;
  while (reader_->Read(&message)) {
    const std::lock_guard<std::mutex> lock(mutex_);
    messages_.push_back(message);
    changed_.notify_all();
  }
  const grpc::Status status = reader_->Finish();
  const std::lock_guard<std::mutex> lock(mutex_);
  status_ = status;
  ended_ = true;
  changed_.notify_all();
}

void WatchReader::Await(const std::function<bool(const v1::WatchResponse&)>& wanted) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto has_come = [&] { return std::any_of(messages_.begin(), messages_.end(), wanted); };
  EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return ended_ || has_come(); }) && has_come())
      << "it has not come; " << status_.error_message();
}

void WatchReader::AwaitSnapshot() {
  Await([](const v1::WatchResponse& message) { return message.snapshot().last(); });
}

void WatchReader::AwaitRevision(int64_t revision) {
  Await([revision](const v1::WatchResponse& message) { return RevisionOf(message) >= revision; });
}

grpc::Status WatchReader::AwaitEnd() {
  std::unique_lock<std::mutex> lock(mutex_);
  EXPECT_TRUE(changed_.wait_for(lock, kPatience, [&] { return ended_; })) << "it goes on";
  return status_;
}

std::vector<v1::WatchResponse> WatchReader::messages() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return messages_;
}

std::vector<v1::Generation> WatchReader::Snapshot() {
  std::vector<v1::Generation> generations;
  for (const v1::WatchResponse& message : messages()) {
    generations.insert(generations.end(), message.snapshot().generations().begin(),
                       message.snapshot().generations().end());
  }
  return generations;
}

std::map<std::string, v1::Event::Progress> WatchReader::Charges() {
  std::map<std::string, v1::Event::Progress> charges;
  for (const v1::WatchResponse& message : messages()) {
    for (const v1::Event& event : message.batch().events()) {
      if (!event.has_progress()) continue;
      const v1::Event::Progress& added = event.progress();
      v1::Event::Progress& sum = charges[event.generation_id()];
      sum.set_prefilled_token_count(sum.prefilled_token_count() + added.prefilled_token_count());
      sum.set_output_token_count(sum.output_token_count() + added.output_token_count());
      sum.set_cached_token_count(sum.cached_token_count() + added.cached_token_count());
      sum.set_recomputed_token_count(sum.recomputed_token_count() + added.recomputed_token_count());
      *sum.mutable_kv_blocks() = added.kv_blocks();
    }
  }
  return charges;
}

}  // namespace fermata
