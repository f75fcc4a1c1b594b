// One KeepSessionAlive call: life signs in, sessions out.

#ifndef FERMATA_CONTROL_KEEP_ALIVE_STREAM_H_
#define FERMATA_CONTROL_KEEP_ALIVE_STREAM_H_

#include <memory>
#include <mutex>

#include "engine/runtime/engine_runtime.h"
#include "grpcpp/grpcpp.h"
#include "proto/fermata/v1/control_service.grpc.pb.h"

namespace fermata {

// Reads a request, waits for the engine's answer, writes it, reads the next: one thing at a time. Its end ends no
// session. Keeps itself alive until gRPC is done with it.
class KeepAliveStream : public grpc::ServerBidiReactor<v1::KeepSessionAliveRequest, v1::Session>,
                        public std::enable_shared_from_this<KeepAliveStream> {
 public:
  // `runtime` must outlive every stream.
  static KeepAliveStream* Create(EngineRuntime& runtime);

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  explicit KeepAliveStream(EngineRuntime& runtime) : runtime_(runtime) {}

  // The engine's answer, on the publisher's thread.
  void OnReply(const Reply* reply);
  void FinishOnce(const grpc::Status& status);

  EngineRuntime& runtime_;
  std::shared_ptr<KeepAliveStream> self_;  // from Create() to OnDone()
  v1::KeepSessionAliveRequest request_;
  v1::Session response_;

  std::mutex mutex_;
  bool finished_ = false;  // guarded by mutex_
};

}  // namespace fermata

#endif  // FERMATA_CONTROL_KEEP_ALIVE_STREAM_H_
