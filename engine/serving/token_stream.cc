#include "engine/serving/token_stream.h"

#include <chrono>
#include <utility>
#include <variant>

#include "engine/serving/generation_conversion.h"
#include "engine/serving/status.h"

namespace fermata {

std::shared_ptr<TokenStream> TokenStream::Create(EngineRuntime& runtime, absl::Duration notice_interval) {
  std::shared_ptr<TokenStream> stream(new TokenStream(runtime, notice_interval));
  stream->self_ = stream;
  return stream;
}

void TokenStream::Refuse(const absl::Status& status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  FinishOnce(ToGrpcStatus(status));
}

void TokenStream::OnReply(const Reply* reply, std::shared_ptr<TokenLog> log, int64_t offset) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (reply == nullptr) {
    FinishOnce(ToGrpcStatus(absl::UnavailableError("the server is shutting down")));
    return;
  }
  const OperationResult& result = std::get<std::vector<OperationResult>>(reply->result).front();
  if (!result.status.ok()) {
    FinishOnce(ToGrpcStatus(result.status));
    return;
  }
  key_ = result.generation->key;
  attached_ = true;
  if (cancelled_ || log == nullptr) {
    // The reader has gone meanwhile, or the generation was forgotten in the same breath.
    DetachOnce();
    FinishOnce(cancelled_ ? grpc::Status::CANCELLED
                          : ToGrpcStatus(absl::NotFoundError("the generation is no longer kept")));
    return;
  }
  log_ = std::move(log);
  cursor_ = log_->Enter(offset);
  // As the log has it, not as the engine answered: a notice that came in between is past for this reader. This is the
  // thread that appends, so nothing comes between these two lines.
  last_notice_ = log_->present();
  WriteAccepted(*result.generation, reply->step);
}

void TokenStream::OnWake() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!writing_ && !finished_) WriteNext();
}

void TokenStream::OnRepeatDue() {
  const std::lock_guard<std::mutex> lock(mutex_);
  repeat_.reset();
  // A write in flight is no silence, and it arms the next one when it is done.
  if (writing_ || finished_) return;
  if (log_->present().state == GenerationState::kRunning) return;
  response_.Clear();
  Fill(last_notice_);
  writing_ = true;
  StartWrite(&response_);
}

void TokenStream::OnWriteDone(bool ok) {
  const std::lock_guard<std::mutex> lock(mutex_);
  writing_ = false;
  if (cancelled_ || !ok) {
    DetachOnce();
    FinishOnce(grpc::Status::CANCELLED);
  } else {
    WriteNext();
  }
}

void TokenStream::OnCancel() {
  const std::lock_guard<std::mutex> lock(mutex_);
  cancelled_ = true;
  DetachOnce();
  // A write in flight ends by itself now, and an answer still to come finds the mark.
  if (!writing_ && log_ != nullptr) FinishOnce(grpc::Status::CANCELLED);
}

void TokenStream::OnDone() {
  std::shared_ptr<TokenStream> self;
  const std::lock_guard<std::mutex> lock(mutex_);
  DetachOnce();
  if (log_ != nullptr) log_->Leave(cursor_);
  repeat_.reset();
  self = std::move(self_);
  finished_ = true;
}

void TokenStream::WriteAccepted(const GenerationInfo& info, int64_t step) {
  v1::Accepted* accepted = response_.mutable_accepted();
  accepted->set_generation_id(info.id.value());
  accepted->set_prompt_token_count(info.usage.prompt_token_count);
  accepted->set_cached_token_count(info.usage.cached_token_count);
  accepted->set_priority(info.priority);
  accepted->set_step(step);
  accepted->set_state(ToProto(last_notice_.state));
  writing_ = true;
  StartWrite(&response_);
}

void TokenStream::WriteNext() {
  if (finished_) return;
  const TokenLog::Item item = log_->Read(cursor_, [stream = weak_from_this()] {
    if (const std::shared_ptr<TokenStream> self = stream.lock()) self->OnWake();
  });
  if (std::holds_alternative<std::monostate>(item)) return ArmRepeat();
  if (std::holds_alternative<LogClosed>(item)) {
    return FinishOnce(grpc::Status(
        grpc::StatusCode::UNAVAILABLE,
        "the server is ending, and the generation is parked on disk: attach to it again when the server is back"));
  }
  response_.Clear();
  writing_ = true;
  if (const auto* chunk = std::get_if<LogChunk>(&item)) {
    Fill(*chunk);
  } else if (const auto* notice = std::get_if<LogNotice>(&item)) {
    Fill(*notice);
    last_notice_ = *notice;
  } else {
    Fill(std::get<LogFinish>(item));
    finished_ = true;
    StartWriteAndFinish(&response_, grpc::WriteOptions(), grpc::Status::OK);
    return;
  }
  StartWrite(&response_);
}

void TokenStream::ArmRepeat() {
  if (repeat_ != nullptr || log_->present().state == GenerationState::kRunning) return;
  // One that has fired cannot be set again from its own callback, so each is new.
  repeat_ = std::make_unique<grpc::Alarm>();
  repeat_->Set(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(notice_interval_),
               [stream = weak_from_this()](bool due) {
                 const std::shared_ptr<TokenStream> self = due ? stream.lock() : nullptr;
                 if (self != nullptr) self->OnRepeatDue();
               });
}

void TokenStream::Fill(const LogChunk& chunk) {
  v1::Chunk* to = response_.mutable_chunk();
  to->set_offset(chunk.offset);
  to->mutable_token_ids()->Reserve(static_cast<int>(chunk.tokens.size()));
  for (const TokenId token : chunk.tokens) to->add_token_ids(Value(token));
  to->set_text(chunk.text);
  to->set_step(chunk.step);
  for (size_t i = 0; i < chunk.logprobs.size(); ++i) {
    v1::TokenLogprobs* logprobs = to->add_logprobs();
    logprobs->set_token_id(Value(chunk.tokens[i]));
    logprobs->set_logprob(chunk.logprobs[i].logprob);
    for (const auto& [token, logprob] : chunk.logprobs[i].top) {
      v1::TokenLogprobs::Candidate* candidate = logprobs->add_top();
      candidate->set_token_id(Value(token));
      candidate->set_logprob(logprob);
    }
  }
}

void TokenStream::Fill(const LogNotice& notice) {
  v1::Notice* to = response_.mutable_notice();
  to->set_state(ToProto(notice.state));
  to->set_step(notice.step);
  to->set_reason(notice.reason);
}

void TokenStream::Fill(const LogFinish& finish) {
  v1::Finish* to = response_.mutable_finish();
  to->set_finish_reason(ToProto(finish.info.finish_reason));
  ToProto(finish.info.usage, to->mutable_usage());
  to->set_step(finish.info.step);
  to->set_error_message(finish.info.error_message);
}

void TokenStream::FinishOnce(const grpc::Status& status) {
  if (std::exchange(finished_, true)) return;
  Finish(status);
}

void TokenStream::DetachOnce() {
  if (std::exchange(attached_, false)) runtime_.Detach(key_);
}

}  // namespace fermata
