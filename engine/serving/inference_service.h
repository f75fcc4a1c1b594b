// The data plane's service.

#ifndef FERMATA_ENGINE_SERVING_INFERENCE_SERVICE_H_
#define FERMATA_ENGINE_SERVING_INFERENCE_SERVICE_H_

#include <cstdint>
#include <optional>

#include "engine/runtime/engine_runtime.h"
#include "engine/serving/model_text.h"
#include "grpcpp/grpcpp.h"
#include "proto/fermata/v1/inference_service.grpc.pb.h"

namespace fermata {

// Stateless: validates, tokenizes and converts on gRPC's threads; everything else is the runtime's.
class InferenceService : public v1::InferenceService::CallbackService {
 public:
  // Borrows both. `min_priority`: the most urgent that data-plane clients get; they are clamped to it. Unset: no clamp.
  InferenceService(EngineRuntime& runtime, const ModelText& text, std::optional<int32_t> min_priority)
      : runtime_(runtime), text_(text), min_priority_(min_priority) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest* request) override;
  grpc::ServerWriteReactor<v1::GenerateResponse>* Attach(grpc::CallbackServerContext* context,
                                                         const v1::AttachRequest* request) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest* request,
                                     v1::Model* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context, const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;

 private:
  EngineRuntime& runtime_;
  const ModelText& text_;
  const std::optional<int32_t> min_priority_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_SERVING_INFERENCE_SERVICE_H_
