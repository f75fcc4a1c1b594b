#include "control/watch_stream.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "control/request_checks.h"
#include "engine/serving/generation_conversion.h"
#include "engine/serving/status.h"

namespace fermata {
WatchStream::WatchStream(EngineRuntime& runtime, std::atomic<int>& watcher_count, const v1::WatchRequest& request,
                         absl::Duration progress_interval)
    : runtime_(runtime),
      log_(runtime.event_log()),
      watcher_count_(watcher_count),
      progress_interval_(progress_interval),
      merger_({request.tenant(), request.traffic_class()}) {}

WatchStream::~WatchStream() { --watcher_count_; }

WatchStream* WatchStream::Create(EngineRuntime& runtime, std::atomic<int>& watcher_count,
                                 const v1::WatchRequest& request) {
  const int others = watcher_count++;
  const absl::StatusOr<absl::Duration> interval = ToProgressInterval(request);
  std::shared_ptr<WatchStream> stream(
      new WatchStream(runtime, watcher_count, request, interval.value_or(absl::ZeroDuration())));
  stream->self_ = stream;
  if (others >= kMaxWatchers) {
    const std::lock_guard<std::mutex> lock(stream->mutex_);
    stream->FinishOnce(absl::ResourceExhaustedError(
        absl::StrCat(kMaxWatchers, " watchers are there, and no more are allowed: share one")));
  } else if (request.from_revision() < 0) {
    const std::lock_guard<std::mutex> lock(stream->mutex_);
    stream->FinishOnce(absl::InvalidArgumentError(
        absl::StrCat("from_revision is ", request.from_revision(), "; allowed is 0 or more")));
  } else if (!interval.ok()) {
    const std::lock_guard<std::mutex> lock(stream->mutex_);
    stream->FinishOnce(interval.status());
  } else {
    stream->Start(request.from_revision());
  }
  return stream.get();
}

void WatchStream::Start(int64_t from_revision) {
  if (from_revision > 0) {
    const std::lock_guard<std::mutex> lock(mutex_);
    sent_revision_ = from_revision - 1;
    Enter(from_revision);
    return WriteNext();
  }
  const absl::Status sent = runtime_.Submit(
      SnapshotCommand(),
      [self = shared_from_this()](const Reply* reply, std::shared_ptr<TokenLog>) { self->OnReply(reply); });
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!sent.ok()) FinishOnce(sent);
}

void WatchStream::OnReply(const Reply* reply) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (reply == nullptr) return FinishOnce(absl::UnavailableError("the server is shutting down"));
  if (cancelled_) return FinishOnce(absl::CancelledError());
  for (const GenerationInfo& info : std::get<GenerationPage>(reply->result).generations) {
    if (merger_.filter().Matches(info.tenant, info.traffic_class)) snapshot_.push_back(info);
  }
  std::reverse(snapshot_.begin(), snapshot_.end());
  snapshot_revision_ = reply->revision;
  // This is the thread that appends to the log, and the snapshot's own revision is there already.
  Enter(reply->revision + 1);
  WriteSnapshotPage();
}

void WatchStream::Enter(int64_t revision) {
  cursor_ = log_.Enter(revision);
  entered_ = true;
}

void WatchStream::WriteSnapshotPage() {
  response_.Clear();
  v1::Snapshot* page = response_.mutable_snapshot();
  page->set_revision(snapshot_revision_);
  for (int n = 0; n < kSnapshotPage && !snapshot_.empty(); ++n) {
    ToProto(snapshot_.back(), page->add_generations());
    snapshot_.pop_back();
  }
  page->set_last(snapshot_.empty());
  sent_revision_ = snapshot_revision_;
  if (snapshot_.empty()) snapshot_revision_ = 0;
  writing_ = true;
  StartWrite(&response_);
}

void WatchStream::WriteNext() {
  if (finished_) return;
  if (snapshot_revision_ != 0) return WriteSnapshotPage();
  while (true) {
    const EventLog::Item item = log_.Read(cursor_, [stream = weak_from_this()] {
      if (const std::shared_ptr<WatchStream> self = stream.lock()) self->OnWake();
    });
    const auto* batch = std::get_if<std::shared_ptr<const WatchedBatch>>(&item);
    if (batch != nullptr) {
      const BatchMerger::Added added = merger_.Add(**batch);
      if (added == BatchMerger::Added::kNothing) continue;
      if (added == BatchMerger::Added::kChange || progress_interval_ == absl::ZeroDuration()) return WriteMerged();
      continue;
    }
    if (std::holds_alternative<std::monostate>(item)) return merger_.empty() ? ArmBookmark() : ArmProgress();
    // The end, whatever it is, is found again after what was held back.
    if (!merger_.empty()) return WriteMerged();
    if (std::holds_alternative<EventLog::Lost>(item)) return FinishOnce(LostStatus());
    return FinishOnce(absl::UnavailableError("the server is shutting down"));
  }
}

void WatchStream::WriteMerged() {
  response_.Clear();
  v1::EventBatch* batch = response_.mutable_batch();
  merger_.Take(batch);
  batch->set_previous_revision(sent_revision_);
  sent_revision_ = batch->revision();
  writing_ = true;
  StartWrite(&response_);
}

void WatchStream::ArmProgress() {
  if (progress_ != nullptr) return;
  progress_ = std::make_unique<grpc::Alarm>();
  progress_->Set(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(progress_interval_),
                 [stream = weak_from_this()](bool due) {
                   const std::shared_ptr<WatchStream> self = due ? stream.lock() : nullptr;
                   if (self != nullptr) self->OnProgressDue();
                 });
}

void WatchStream::OnProgressDue() {
  const std::lock_guard<std::mutex> lock(mutex_);
  progress_.reset();
  if (writing_ || finished_ || merger_.empty()) return;
  WriteMerged();
}

void WatchStream::OnWake() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!writing_ && !finished_) WriteNext();
}

void WatchStream::ArmBookmark() {
  if (bookmark_ != nullptr) return;
  // One that has fired cannot be set again from its own callback, so each is new.
  bookmark_ = std::make_unique<grpc::Alarm>();
  bookmark_->Set(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(kBookmarkInterval),
                 [stream = weak_from_this()](bool due) {
                   const std::shared_ptr<WatchStream> self = due ? stream.lock() : nullptr;
                   if (self != nullptr) self->OnBookmarkDue();
                 });
}

void WatchStream::OnBookmarkDue() {
  const std::lock_guard<std::mutex> lock(mutex_);
  bookmark_.reset();
  // A write in flight is no silence, nor is what is held back, and the next one is armed after it.
  if (writing_ || finished_ || !merger_.empty()) return;
  response_.Clear();
  sent_revision_ = cursor_.revision - 1;
  response_.mutable_bookmark()->set_revision(sent_revision_);
  writing_ = true;
  StartWrite(&response_);
}

void WatchStream::OnWriteDone(bool ok) {
  const std::lock_guard<std::mutex> lock(mutex_);
  writing_ = false;
  if (cancelled_ || !ok) {
    FinishOnce(absl::CancelledError());
  } else {
    WriteNext();
  }
}

void WatchStream::OnCancel() {
  const std::lock_guard<std::mutex> lock(mutex_);
  cancelled_ = true;
  // A write in flight ends by itself now, and a snapshot still to come finds the mark.
  if (!writing_ && entered_) FinishOnce(absl::CancelledError());
}

void WatchStream::OnDone() {
  std::shared_ptr<WatchStream> self;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (entered_) log_.Leave(cursor_);
  progress_.reset();
  bookmark_.reset();
  self = std::move(self_);
  finished_ = true;
}

void WatchStream::FinishOnce(const absl::Status& status) {
  if (std::exchange(finished_, true)) return;
  Finish(ToGrpcStatus(status));
}

absl::Status WatchStream::LostStatus() const {
  return absl::OutOfRangeError(absl::StrCat("revision ", cursor_.revision, " is not to be had: kept are ",
                                            log_.first_revision(), " to ", log_.last_revision(),
                                            "; begin again with from_revision 0, a new snapshot"));
}

}  // namespace fermata
