#include "engine/runtime/publisher.h"

#include <iterator>
#include <string>
#include <utility>
#include <variant>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "glog/logging.h"

namespace fermata {
namespace {

// Says why: the cause, and for a pause what its caller gave as the reason.
std::string ReasonOf(const StateChanged& change) {
  std::string reason(Name(change.cause).data(), Name(change.cause).size());
  if (change.info != nullptr && !change.info->pause.reason.empty()) {
    absl::StrAppend(&reason, ": ", change.info->pause.reason);
  }
  return reason;
}

const OperationResult* FirstResult(const Reply& reply) {
  const auto* results = std::get_if<std::vector<OperationResult>>(&reply.result);
  return results == nullptr || results->empty() ? nullptr : &results->front();
}

}  // namespace

Publisher::Publisher(EngineStats& stats, int64_t revision, ReportObserver* observer)
    : stats_(stats), observer_(observer), event_log_(revision), thread_([this] { Loop(); }) {}

Publisher::~Publisher() { CHECK(!thread_.joinable()) << "Stop() was not called"; }

Ticket Publisher::Expect(ReplyCallback callback) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Ticket ticket{next_ticket_++};
  callbacks_.emplace(ticket, std::move(callback));
  return ticket;
}

bool Publisher::Forget(Ticket ticket) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return callbacks_.erase(ticket) > 0;
}

void Publisher::Push(Report report, absl::Time now, absl::Duration step_duration) {
  pushed_.push_back({std::move(report), now, step_duration});
}

void Publisher::Flush() {
  if (pushed_.empty()) return;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return pending_.size() < kMaxPending; });
    std::move(pushed_.begin(), pushed_.end(), std::back_inserter(pending_));
  }
  changed_.notify_all();
  pushed_.clear();
}

void Publisher::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
  // What lives now is parked: its readers are told that this process ends.
  for (const auto& [key, known] : known_) {
    known.log->Close();
    known.log->WakeReaders();
  }
  absl::flat_hash_map<Ticket, ReplyCallback> unanswered;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    unanswered.swap(callbacks_);
  }
  for (const auto& [ticket, callback] : unanswered) callback(nullptr, nullptr);
  event_log_.Close();
}

void Publisher::Loop() {
  while (true) {
    std::deque<Pending> taken;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !pending_.empty(); });
      if (pending_.empty()) return;
      taken.swap(pending_);
    }
    changed_.notify_all();
    // Acknowledgements wait for no reader: all of them go first. And a reader is woken once, not once a report.
    for (Pending& pending : taken) Publish(std::move(pending));
    Wake();
  }
}

void Publisher::Publish(Pending pending) {
  // While nothing has been moved out of it.
  if (observer_ != nullptr) observer_->OnReport(pending.report, pending.now, pending.step_duration);
  const int64_t output_tokens = absl::c_count_if(
      pending.report.events, [](const Event& event) { return std::holds_alternative<TokenSampled>(event); });
  WatchedBatch batch = {pending.report.revision, pending.report.step, pending.step_duration, {}};
  batch.events.reserve(pending.report.events.size() - output_tokens);
  for (Event& event : pending.report.events) PublishEvent(event, pending.report.step, batch);
  if (pending.step_duration > absl::ZeroDuration()) {
    stats_.AddStep(pending.now, pending.step_duration, output_tokens);
  }
  // Before the replies: a snapshot is one, and its watcher goes on from here.
  if (!pending.report.events.empty()) event_log_.Append(std::move(batch));
  for (const Reply& reply : pending.report.replies) Answer(reply);
  for (const GenerationKey key : pending.report.forgotten) known_.erase(key);
}

void Publisher::Wake() {
  for (const std::shared_ptr<TokenLog>& log : touched_) log->WakeReaders();
  touched_.clear();
  event_log_.WakeWatchers();
}

const Publisher::Known& Publisher::Find(GenerationKey key) const {
  const auto it = known_.find(key);
  CHECK(it != known_.end()) << "an event of an unknown generation";
  return it->second;
}

void Publisher::Touch(const Known& known, bool reader_waits) {
  // Several events of one generation in a row wake its readers once.
  if (reader_waits && (touched_.empty() || touched_.back() != known.log)) touched_.push_back(known.log);
}

void Publisher::PublishEvent(Event& event, int64_t step, WatchedBatch& batch) {
  if (const auto* change = std::get_if<StateChanged>(&event)) {
    const WatchedStateChange watched = {change->from, change->to, change->cause};
    PublishStateChange(*change, step);
    batch.events.push_back({Find(change->key).identity, watched});
  } else if (const auto* progress = std::get_if<Progress>(&event)) {
    batch.events.push_back({Find(progress->key).identity, *progress});
  } else if (const auto* moved = std::get_if<KvMoved>(&event)) {
    batch.events.push_back({Find(moved->key).identity, *moved});
  } else if (const auto* priority = std::get_if<PriorityChanged>(&event)) {
    batch.events.push_back({Find(priority->key).identity, *priority});
  } else if (auto* sampled = std::get_if<TokenSampled>(&event)) {
    const Known& known = Find(sampled->key);
    Touch(known, known.log->AppendToken(sampled->token, sampled->text, step, std::move(sampled->logprobs)));
  } else if (auto* released = std::get_if<TextReleased>(&event)) {
    const Known& known = Find(released->key);
    Touch(known, known.log->AppendText(released->text));
  }
}

void Publisher::PublishStateChange(const StateChanged& change, int64_t step) {
  const bool created = change.from == GenerationState::kNone;
  if (created) {
    CHECK(change.info != nullptr);
    known_[change.key] = {std::make_shared<TokenLog>(),
                          std::make_shared<const WatchedIdentity>(WatchedIdentity{
                              change.info->id.value(), change.info->tenant, change.info->traffic_class})};
  }
  const Known& known = Find(change.key);
  if (change.to == GenerationState::kFinished) {
    CHECK(change.info != nullptr);
    Touch(known, known.log->AppendFinish(*change.info));
    return;
  }
  // How it began is in `accepted`, and its first step shows itself by its tokens.
  const bool first_run = change.from == GenerationState::kQueued && change.to == GenerationState::kRunning;
  Touch(known, known.log->AppendState({change.to, step, ReasonOf(change)}, /*announced=*/!created && !first_run));
}

void Publisher::Answer(const Reply& reply) {
  ReplyCallback callback;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto it = callbacks_.find(reply.ticket);
    if (it == callbacks_.end()) return;
    callback = std::move(it->second);
    callbacks_.erase(it);
  }
  std::shared_ptr<TokenLog> log;
  const OperationResult* first = FirstResult(reply);
  if (first != nullptr && first->generation.has_value()) {
    const auto it = known_.find(first->generation->key);
    if (it != known_.end()) log = it->second.log;
  }
  callback(&reply, std::move(log));
}

}  // namespace fermata
