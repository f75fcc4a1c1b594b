#include "control/keep_alive_stream.h"

#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "control/verb_conversion.h"
#include "engine/serving/status.h"

namespace fermata {

KeepAliveStream* KeepAliveStream::Create(EngineRuntime& runtime) {
  std::shared_ptr<KeepAliveStream> stream(new KeepAliveStream(runtime));
  stream->self_ = stream;
  stream->StartRead(&stream->request_);
  return stream.get();
}

void KeepAliveStream::OnReadDone(bool ok) {
  if (!ok) return FinishOnce(grpc::Status::OK);  // the caller has closed the stream
  absl::StatusOr<KeepSessionAliveCommand> command = ToCommand(request_);
  if (!command.ok()) return FinishOnce(ToGrpcStatus(command.status()));
  const absl::Status sent = runtime_.Submit(
      *std::move(command),
      [self = shared_from_this()](const Reply* reply, std::shared_ptr<TokenLog>) { self->OnReply(reply); });
  if (!sent.ok()) FinishOnce(ToGrpcStatus(sent));
}

void KeepAliveStream::OnReply(const Reply* reply) {
  if (reply == nullptr) return FinishOnce(ToGrpcStatus(absl::UnavailableError("the server is shutting down")));
  if (!reply->status.ok()) return FinishOnce(ToGrpcStatus(reply->status));
  const std::lock_guard<std::mutex> lock(mutex_);
  if (finished_) return;
  ToProto(std::get<SessionInfo>(reply->result), &response_);
  StartWrite(&response_);
}

void KeepAliveStream::OnWriteDone(bool ok) {
  if (!ok) return FinishOnce(grpc::Status::CANCELLED);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!finished_) StartRead(&request_);
}

void KeepAliveStream::OnCancel() { FinishOnce(grpc::Status::CANCELLED); }

void KeepAliveStream::OnDone() {
  // Outside of this: the reply that is still to come may be the last to hold it.
  const std::shared_ptr<KeepAliveStream> self = std::exchange(self_, nullptr);
}

void KeepAliveStream::FinishOnce(const grpc::Status& status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (std::exchange(finished_, true)) return;
  Finish(status);
}

}  // namespace fermata
