#include "control/control_service.h"

#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "control/engine_conversion.h"
#include "control/keep_alive_stream.h"
#include "control/request_checks.h"
#include "control/verb_conversion.h"
#include "control/watch_stream.h"
#include "engine/serving/generation_conversion.h"
#include "engine/serving/spec_conversion.h"
#include "engine/serving/status.h"

namespace fermata {
namespace {

using google::protobuf::RepeatedPtrField;

grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

void FillResults(const Reply& reply, v1::OperationResults* response) {
  response->set_step(reply.step);
  response->set_revision(reply.revision);
  for (const OperationResult& result : std::get<std::vector<OperationResult>>(reply.result)) {
    v1::OperationResult* to = response->add_results();
    to->set_generation_id(result.id.value());
    to->set_code(static_cast<int>(result.status.code()));
    to->set_message(std::string(result.status.message()));
    if (result.generation.has_value()) ToProto(*result.generation, to->mutable_generation());
  }
}

// Sends `command`; `fill(reply)` makes the response of its reply and says how the RPC ends.
template <typename TypedCommand, typename Fill>
grpc::ServerUnaryReactor* Submit(EngineRuntime& runtime, grpc::CallbackServerContext* context, TypedCommand command,
                                 Fill fill) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const absl::Status sent = runtime.Submit(
      std::move(command), [reactor, fill = std::move(fill)](const Reply* reply, std::shared_ptr<TokenLog>) {
        absl::Status status = absl::UnavailableError("the server is shutting down");
        if (reply != nullptr) status = reply->status.ok() ? fill(*reply) : reply->status;
        reactor->Finish(ToGrpcStatus(status));
      });
  if (!sent.ok()) reactor->Finish(ToGrpcStatus(sent));
  return reactor;
}

// For the verbs whose RPC is OK whatever their ids' results are.
template <typename TypedCommand>
grpc::ServerUnaryReactor* SubmitVerb(EngineRuntime& runtime, grpc::CallbackServerContext* context,
                                     absl::StatusOr<TypedCommand> command, v1::OperationResults* response) {
  if (!command.ok()) return FinishNow(context, command.status());
  return Submit(runtime, context, *std::move(command), [response](const Reply& reply) {
    FillResults(reply, response);
    return absl::OkStatus();
  });
}

// For what is answered by a session.
template <typename TypedCommand>
grpc::ServerUnaryReactor* SubmitForSession(EngineRuntime& runtime, grpc::CallbackServerContext* context,
                                           absl::StatusOr<TypedCommand> command, v1::Session* response) {
  if (!command.ok()) return FinishNow(context, command.status());
  return Submit(runtime, context, *std::move(command), [response](const Reply& reply) {
    ToProto(std::get<SessionInfo>(reply.result), response);
    return absl::OkStatus();
  });
}

// For RPCs about one generation, whose error is the RPC's.
template <typename TypedCommand>
grpc::ServerUnaryReactor* SubmitForOne(EngineRuntime& runtime, grpc::CallbackServerContext* context,
                                       TypedCommand command, v1::Generation* response) {
  return Submit(runtime, context, std::move(command), [response](const Reply& reply) {
    const OperationResult& result = std::get<std::vector<OperationResult>>(reply.result).front();
    if (result.generation.has_value()) ToProto(*result.generation, response);
    return result.status;
  });
}

}  // namespace

grpc::ServerUnaryReactor* ControlService::Enqueue(grpc::CallbackServerContext* context,
                                                  const v1::EnqueueRequest* request, v1::Generation* response) {
  absl::StatusOr<EnqueueCommand> command = ToCommand(*request, text_);
  if (!command.ok()) return FinishNow(context, command.status());
  return SubmitForOne(runtime_, context, *std::move(command), response);
}

grpc::ServerUnaryReactor* ControlService::Preempt(grpc::CallbackServerContext* context,
                                                  const v1::PreemptRequest* request, v1::OperationResults* response) {
  return SubmitVerb(runtime_, context, ToCommand(*request), response);
}

grpc::ServerUnaryReactor* ControlService::Continue(grpc::CallbackServerContext* context,
                                                   const v1::ContinueRequest* request, v1::OperationResults* response) {
  return SubmitVerb(runtime_, context, ToCommand(*request, text_), response);
}

grpc::ServerUnaryReactor* ControlService::Abort(grpc::CallbackServerContext* context, const v1::AbortRequest* request,
                                                v1::OperationResults* response) {
  return SubmitVerb(runtime_, context, ToCommand(*request), response);
}

grpc::ServerUnaryReactor* ControlService::SetPriority(grpc::CallbackServerContext* context,
                                                      const v1::SetPriorityRequest* request,
                                                      v1::OperationResults* response) {
  return SubmitVerb(runtime_, context, ToCommand(*request), response);
}

grpc::ServerUnaryReactor* ControlService::Apply(grpc::CallbackServerContext* context, const v1::ApplyRequest* request,
                                                v1::OperationResults* response) {
  return SubmitVerb(runtime_, context, ToCommand(*request, text_), response);
}

grpc::ServerUnaryReactor* ControlService::GetGeneration(grpc::CallbackServerContext* context,
                                                        const v1::GetGenerationRequest* request,
                                                        v1::Generation* response) {
  const absl::StatusOr<GenerationId> id = GenerationId::Parse(request->generation_id());
  if (!id.ok()) return FinishNow(context, id.status());
  return SubmitForOne(runtime_, context, GetGenerationCommand{.id = *id}, response);
}

grpc::ServerUnaryReactor* ControlService::ListGenerations(grpc::CallbackServerContext* context,
                                                          const v1::ListGenerationsRequest* request,
                                                          v1::ListGenerationsResponse* response) {
  absl::StatusOr<ListGenerationsCommand> command = ToListCommand(*request, kMaxPageSize);
  if (!command.ok()) return FinishNow(context, command.status());
  return Submit(runtime_, context, *std::move(command), [response](const Reply& reply) {
    const auto& page = std::get<GenerationPage>(reply.result);
    for (const GenerationInfo& info : page.generations) ToProto(info, response->add_generations());
    if (page.next_after.has_value()) response->set_next_page_token(absl::StrCat(Value(*page.next_after)));
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* ControlService::GetEngine(grpc::CallbackServerContext* context, const v1::GetEngineRequest*,
                                                    v1::Engine* response) {
  return Submit(runtime_, context, GetEngineCommand(), [this, response](const Reply& reply) {
    ToProto(std::get<EngineInfo>(reply.result), runtime_, text_.info.name, response);
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<v1::WatchResponse>* ControlService::Watch(grpc::CallbackServerContext*,
                                                                   const v1::WatchRequest* request) {
  return WatchStream::Create(runtime_, watcher_count_, *request);
}

grpc::ServerUnaryReactor* ControlService::OpenSession(grpc::CallbackServerContext* context,
                                                      const v1::OpenSessionRequest* request, v1::Session* response) {
  return SubmitForSession(runtime_, context, ToCommand(*request), response);
}

grpc::ServerBidiReactor<v1::KeepSessionAliveRequest, v1::Session>* ControlService::KeepSessionAlive(
    grpc::CallbackServerContext*) {
  return KeepAliveStream::Create(runtime_);
}

grpc::ServerUnaryReactor* ControlService::CloseSession(grpc::CallbackServerContext* context,
                                                       const v1::CloseSessionRequest* request, v1::Session* response) {
  return SubmitForSession(runtime_, context, ToCommand(*request), response);
}

}  // namespace fermata
