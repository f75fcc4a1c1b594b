// The control plane's service.

#ifndef FERMATA_CONTROL_CONTROL_SERVICE_H_
#define FERMATA_CONTROL_CONTROL_SERVICE_H_

#include <atomic>
#include <string>

#include "engine/runtime/engine_runtime.h"
#include "engine/serving/model_text.h"
#include "grpcpp/grpcpp.h"
#include "proto/fermata/v1/control_service.grpc.pb.h"

namespace fermata {

// Validates and converts on gRPC's threads; everything else is the runtime's. What is not served yet is refused with
// UNIMPLEMENTED and its name.
class ControlService : public v1::ControlService::CallbackService {
 public:
  static constexpr int kMaxPageSize = 1000;

  // Borrows both.
  ControlService(EngineRuntime& runtime, const ModelText& text) : runtime_(runtime), text_(text) {}

  grpc::ServerUnaryReactor* Enqueue(grpc::CallbackServerContext* context, const v1::EnqueueRequest* request,
                                    v1::Generation* response) override;
  grpc::ServerUnaryReactor* Preempt(grpc::CallbackServerContext* context, const v1::PreemptRequest* request,
                                    v1::OperationResults* response) override;
  grpc::ServerUnaryReactor* Continue(grpc::CallbackServerContext* context, const v1::ContinueRequest* request,
                                     v1::OperationResults* response) override;
  grpc::ServerUnaryReactor* Abort(grpc::CallbackServerContext* context, const v1::AbortRequest* request,
                                  v1::OperationResults* response) override;
  grpc::ServerUnaryReactor* SetPriority(grpc::CallbackServerContext* context, const v1::SetPriorityRequest* request,
                                        v1::OperationResults* response) override;
  grpc::ServerUnaryReactor* Apply(grpc::CallbackServerContext* context, const v1::ApplyRequest* request,
                                  v1::OperationResults* response) override;
  grpc::ServerUnaryReactor* GetGeneration(grpc::CallbackServerContext* context, const v1::GetGenerationRequest* request,
                                          v1::Generation* response) override;
  grpc::ServerUnaryReactor* ListGenerations(grpc::CallbackServerContext* context,
                                            const v1::ListGenerationsRequest* request,
                                            v1::ListGenerationsResponse* response) override;
  grpc::ServerUnaryReactor* GetEngine(grpc::CallbackServerContext* context, const v1::GetEngineRequest* request,
                                      v1::Engine* response) override;

  grpc::ServerWriteReactor<v1::WatchResponse>* Watch(grpc::CallbackServerContext* context,
                                                     const v1::WatchRequest* request) override;
  grpc::ServerUnaryReactor* OpenSession(grpc::CallbackServerContext* context, const v1::OpenSessionRequest* request,
                                        v1::Session* response) override;
  grpc::ServerBidiReactor<v1::KeepSessionAliveRequest, v1::Session>* KeepSessionAlive(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* CloseSession(grpc::CallbackServerContext* context, const v1::CloseSessionRequest* request,
                                         v1::Session* response) override;

 private:
  EngineRuntime& runtime_;
  const ModelText& text_;
  std::atomic<int> watcher_count_ = 0;
};

}  // namespace fermata

#endif  // FERMATA_CONTROL_CONTROL_SERVICE_H_
