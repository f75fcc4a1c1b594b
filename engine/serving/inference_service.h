// The data plane's service.

#ifndef FERMATA_ENGINE_SERVING_INFERENCE_SERVICE_H_
#define FERMATA_ENGINE_SERVING_INFERENCE_SERVICE_H_

#include <cstdint>
#include <optional>

#include "absl/time/time.h"
#include "engine/runtime/engine_runtime.h"
#include "engine/serving/model_text.h"
#include "grpcpp/grpcpp.h"
#include "proto/fermata/v1/inference_service.grpc.pb.h"

namespace fermata {

// Stateless: validates, tokenizes and converts on gRPC's threads; everything else is the runtime's.
class InferenceService : public v1::InferenceService::CallbackService {
 public:
  struct Options {
    // The most urgent that data-plane clients get: they are clamped to it. Unset: no clamp.
    std::optional<int32_t> min_priority;

    // After so long a silence, the stream of a generation that does not run repeats its last notice, for proxies that
    // cut silent streams.
    absl::Duration notice_interval = absl::Seconds(15);
  };

  // Borrows `runtime` and `text`.
  InferenceService(EngineRuntime& runtime, const ModelText& text, const Options& options)
      : runtime_(runtime), text_(text), options_(options) {}

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
  const Options options_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_SERVING_INFERENCE_SERVICE_H_
