// One reader of one generation: what Generate and Attach answer with.

#ifndef FERMATA_ENGINE_SERVING_TOKEN_STREAM_H_
#define FERMATA_ENGINE_SERVING_TOKEN_STREAM_H_

#include <functional>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/core/commands.h"
#include "engine/core/ids.h"
#include "engine/runtime/engine_runtime.h"
#include "engine/runtime/publisher.h"
#include "engine/runtime/token_log.h"
#include "grpcpp/alarm.h"
#include "grpcpp/support/server_callback.h"
#include "proto/fermata/v1/inference_service.pb.h"

namespace fermata {

// Writes `accepted`, then what the log holds as fast as the reader takes it, with one write in flight at a time; chunks
// grow while a reader is slow. While the generation does not run, says so again from time to time. Keeps itself alive
// until gRPC is done with it. Tells the engine once when its reader has gone.
//
// gRPC calls the reactor's methods, and the publisher wakes it, each on threads of their own: one mutex guards all.
class TokenStream : public grpc::ServerWriteReactor<v1::GenerateResponse>,
                    public std::enable_shared_from_this<TokenStream> {
 public:
  // `runtime` must outlive every stream. `notice_interval`: how long a stream is silent before the last notice is
  // repeated. Exactly one of the next two must follow.
  static std::shared_ptr<TokenStream> Create(EngineRuntime& runtime, absl::Duration notice_interval);

  // Ends the stream before it has begun.
  void Refuse(const absl::Status& status);

  // Sends `command`, whose success counts one reader, and streams from `offset`. An EnqueueCommand or an AttachCommand.
  template <typename TypedCommand>
  void Start(TypedCommand command, int64_t offset) {
    const absl::Status status = runtime_.Submit(
        std::move(command), [self = shared_from_this(), offset](const Reply* reply, std::shared_ptr<TokenLog> log) {
          self->OnReply(reply, std::move(log), offset);
        });
    if (!status.ok()) Refuse(status);
  }

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  TokenStream(EngineRuntime& runtime, absl::Duration notice_interval)
      : runtime_(runtime), notice_interval_(notice_interval) {}

  // The engine's answer, on the publisher's thread.
  void OnReply(const Reply* reply, std::shared_ptr<TokenLog> log, int64_t offset);

  // There may be something new in the log.
  void OnWake();

  // The stream was silent for long enough.
  void OnRepeatDue();

  // The following need mutex_.
  void WriteAccepted(const GenerationInfo& info, int64_t step);
  void WriteNext();
  void ArmRepeat();
  void Fill(const LogChunk& chunk);
  void Fill(const LogNotice& notice);
  void Fill(const LogFinish& finish);
  void FinishOnce(const grpc::Status& status);
  void DetachOnce();

  EngineRuntime& runtime_;
  const absl::Duration notice_interval_;
  std::shared_ptr<TokenStream> self_;  // from Create() to OnDone()

  std::mutex mutex_;
  // All guarded by mutex_.
  v1::GenerateResponse response_;  // the write in flight
  std::shared_ptr<TokenLog> log_;
  TokenLog::Cursor cursor_;
  LogNotice last_notice_;                // what the reader was told last of the state
  std::unique_ptr<grpc::Alarm> repeat_;  // not null: armed
  GenerationKey key_{};
  bool attached_ = false;  // a reader is counted for this
  bool writing_ = false;
  bool cancelled_ = false;
  bool finished_ = false;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_SERVING_TOKEN_STREAM_H_
