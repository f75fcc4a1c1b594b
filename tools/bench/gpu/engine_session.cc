#include "tools/bench/gpu/engine_session.h"

#include <algorithm>
#include <future>
#include <utility>
#include <variant>

#include "absl/time/clock.h"
#include "engine/runtime/kv_tiers.h"
#include "glog/logging.h"

namespace fermata {
namespace {

GenerationId IdOf(const std::string& name) {
  const absl::StatusOr<GenerationId> id = GenerationId::Parse(name);
  CHECK(id.ok()) << id.status();
  return *id;
}

std::vector<GenerationId> IdsOf(const std::vector<std::string>& names) {
  std::vector<GenerationId> ids;
  for (const std::string& name : names) ids.push_back(IdOf(name));
  return ids;
}

void CheckResults(const Reply& reply) {
  CHECK(reply.status.ok()) << reply.status;
  for (const OperationResult& result : std::get<std::vector<OperationResult>>(reply.result)) {
    CHECK(result.status.ok()) << result.id.value() << ": " << result.status;
  }
}

}  // namespace

EngineSession::EngineSession(EngineOptions options, int64_t host_bytes, const TokenDecoder& decoder,
                             RunnerRecords& records)
    : records_(records), vocabulary_size_(decoder.vocabulary_size()), random_(std::random_device{}()) {
  auto runner = std::make_unique<MeasuredRunner>(records);
  absl::StatusOr<KvTiers> tiers = OpenKvTiers({.host_bytes = host_bytes}, *runner, options);
  CHECK(tiers.ok()) << tiers.status();
  const absl::Status valid = options.Validate();
  CHECK(valid.ok()) << valid;
  records.TakeSteps();
  records.TakeCopies();
  runtime_ = std::make_unique<EngineRuntime>(
      EngineRuntime::Options{.engine = options, .observer = this, .tiers = *std::move(tiers)}, decoder,
      std::move(runner), clock_);
}

EngineSession::~EngineSession() { runtime_.reset(); }

void EngineSession::Enqueue(const std::string& id, int32_t prompt_tokens, int32_t max_tokens, int32_t priority) {
  EnqueueCommand command;
  command.id = IdOf(id);
  for (int32_t i = 0; i < prompt_tokens; ++i) {
    command.spec.prompt.push_back(TokenId{static_cast<int32_t>(random_() % static_cast<uint32_t>(vocabulary_size_))});
  }
  command.spec.sampling.max_tokens = max_tokens;
  command.spec.sampling.temperature = 0;
  command.spec.sampling.ignore_eos = true;
  command.spec.priority = priority;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    asked_[id] = absl::Now();
  }
  const absl::Status status =
      runtime_->Submit(std::move(command), [this, id](const Reply* reply, std::shared_ptr<TokenLog>) {
        if (reply == nullptr) return;
        CheckResults(*reply);
        const std::lock_guard<std::mutex> lock(mutex_);
        const GenerationKey key = std::get<std::vector<OperationResult>>(reply->result)[0].generation->key;
        keys_[id] = key;
        seen_[key].asked = asked_[id];
        changed_.notify_all();
      });
  CHECK(status.ok()) << status;
}

template <typename TypedCommand>
Reply EngineSession::Call(TypedCommand command) {
  std::promise<Reply> promise;
  const absl::Status status =
      runtime_->Submit(std::move(command), [&promise](const Reply* reply, std::shared_ptr<TokenLog>) {
        CHECK(reply != nullptr) << "the engine has ended";
        promise.set_value(*reply);
      });
  CHECK(status.ok()) << status;
  Reply reply = promise.get_future().get();
  CheckResults(reply);
  return reply;
}

int64_t EngineSession::Preempt(const std::vector<std::string>& ids, KvTier tier) {
  return Call(PreemptCommand{.ids = IdsOf(ids), .reason = "measured", .tier = tier}).step;
}

int64_t EngineSession::Continue(const std::vector<std::string>& ids) {
  return Call(ContinueCommand{.ids = IdsOf(ids)}).step;
}

void EngineSession::Swap(const std::vector<std::string>& paused, const std::vector<std::string>& continued) {
  ApplyCommand command;
  command.operations.push_back(PreemptCommand{.ids = IdsOf(paused)});
  command.operations.push_back(ContinueCommand{.ids = IdsOf(continued)});
  Call(std::move(command));
}

void EngineSession::Await(const std::function<bool()>& condition) {
  std::unique_lock<std::mutex> lock(mutex_);
  CHECK(changed_.wait_for(lock, std::chrono::minutes(5), condition)) << "waited in vain";
}

void EngineSession::AwaitFirstTokens(const std::vector<std::string>& ids) {
  Await([&] {
    return std::all_of(ids.begin(), ids.end(), [&](const std::string& id) {
      const auto key = keys_.find(id);
      return key != keys_.end() && seen_[key->second].tokens > 0;
    });
  });
}

void EngineSession::AwaitTokenAfter(const std::string& id, int64_t step) {
  Await([&] { return seen_[keys_[id]].last_step > step; });
}

void EngineSession::AwaitTier(const std::string& id, KvTier tier) {
  Await([&] { return seen_[keys_[id]].tier == tier; });
}

void EngineSession::AwaitFinished(int64_t count) {
  Await([&] { return finished_total_ >= count; });
}

void EngineSession::AwaitTokens(int64_t total) {
  Await([&] { return token_total_ >= total; });
}

int64_t EngineSession::token_total() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return token_total_;
}

std::map<std::string, SeenGeneration> EngineSession::Seen() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::map<std::string, SeenGeneration> seen;
  for (const auto& [id, key] : keys_) seen[id] = seen_[key];
  return seen;
}

void EngineSession::OnReport(const Report& report, absl::Time, absl::Duration) {
  const absl::Time now = absl::Now();
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Event& event : report.events) {
    if (const auto* sampled = std::get_if<TokenSampled>(&event)) {
      SeenGeneration& seen = seen_[sampled->key];
      if (seen.tokens++ == 0) seen.first_token = now;
      seen.last_token = now;
      seen.last_step = report.step;
      ++token_total_;
    } else if (const auto* change = std::get_if<StateChanged>(&event)) {
      CHECK(change->info == nullptr || change->info->finish_reason != FinishReason::kError)
          << change->info->error_message;
      if (change->to != GenerationState::kFinished) continue;
      seen_[change->key].finished = true;
      ++finished_total_;
    } else if (const auto* moved = std::get_if<KvMoved>(&event)) {
      CHECK(moved->error.empty()) << moved->error;
      seen_[moved->key].tier = moved->to;
    }
  }
  changed_.notify_all();
}

}  // namespace fermata
