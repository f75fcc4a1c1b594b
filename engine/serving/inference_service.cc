#include "engine/serving/inference_service.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/serving/spec_conversion.h"
#include "engine/serving/status.h"
#include "engine/serving/token_stream.h"

namespace fermata {
namespace {

// A small id can stand for a long text: this bounds the answer.
constexpr int kMaxDetokenizedTokens = 1 << 17;

absl::StatusOr<std::vector<TokenId>> TokenizeInput(const v1::TokenizeRequest& request, const ModelText& text) {
  switch (request.input_case()) {
    case v1::TokenizeRequest::kText:
      return ToTokens(request.text(), text);
    case v1::TokenizeRequest::kChat:
      return ToTokens(request.chat(), text);
    case v1::TokenizeRequest::INPUT_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("input is not set; it needs text or chat");
}

grpc::ServerUnaryReactor* FinishUnary(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Generate(grpc::CallbackServerContext*,
                                                                           const v1::GenerateRequest* request) {
  const std::shared_ptr<TokenStream> stream = TokenStream::Create(runtime_, options_.notice_interval);
  const absl::StatusOr<GenerationId> id = ToNewGenerationId(request->generation_id());
  absl::StatusOr<GenerationSpec> spec = id.ok() ? ToGenerationSpec(request->spec(), OnDisconnect::kAbort, text_)
                                                : absl::StatusOr<GenerationSpec>(id.status());
  if (!spec.ok()) {
    stream->Refuse(spec.status());
    return stream.get();
  }
  if (options_.min_priority.has_value()) spec->priority = std::max(spec->priority, *options_.min_priority);
  stream->Start(EnqueueCommand{.id = *id,
                               .spec = *std::move(spec),
                               .body_digest = DigestBody(request->spec(), /*hold=*/false),
                               .attach_reader = true},
                /*offset=*/0);
  return stream.get();
}

grpc::ServerWriteReactor<v1::GenerateResponse>* InferenceService::Attach(grpc::CallbackServerContext*,
                                                                         const v1::AttachRequest* request) {
  const std::shared_ptr<TokenStream> stream = TokenStream::Create(runtime_, options_.notice_interval);
  const absl::StatusOr<GenerationId> id = GenerationId::Parse(request->generation_id());
  if (!id.ok()) {
    stream->Refuse(id.status());
  } else if (request->offset() < 0) {
    stream->Refuse(absl::InvalidArgumentError(absl::StrCat("offset is ", request->offset(), "; allowed is 0 or more")));
  } else {
    stream->Start(AttachCommand{.id = *id, .offset = request->offset()}, request->offset());
  }
  return stream.get();
}

grpc::ServerUnaryReactor* InferenceService::GetModel(grpc::CallbackServerContext* context, const v1::GetModelRequest*,
                                                     v1::Model* response) {
  const ModelInfo& info = text_.info;
  response->set_name(info.name);
  response->set_family(info.family);
  response->set_parameter_count(info.parameter_count);
  response->set_quantization(info.quantization);
  response->set_context_token_count(text_.context_tokens);
  response->set_vocabulary_size(info.vocabulary_size);
  if (!info.bos_token_ids.empty()) response->set_bos_token_id(Value(info.bos_token_ids[0]));
  for (const TokenId token : info.end_of_generation_token_ids) {
    response->add_end_of_generation_token_ids(Value(token));
  }
  response->set_has_chat_template(info.has_chat_template);
  return FinishUnary(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(grpc::CallbackServerContext* context,
                                                     const v1::TokenizeRequest* request,
                                                     v1::TokenizeResponse* response) {
  const absl::StatusOr<std::vector<TokenId>> tokens = TokenizeInput(*request, text_);
  if (tokens.ok()) {
    for (const TokenId token : *tokens) response->add_token_ids(Value(token));
  }
  return FinishUnary(context, tokens.status());
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(grpc::CallbackServerContext* context,
                                                       const v1::DetokenizeRequest* request,
                                                       v1::DetokenizeResponse* response) {
  if (request->token_ids_size() > kMaxDetokenizedTokens) {
    return FinishUnary(
        context, absl::InvalidArgumentError(absl::StrCat("token_ids has ", request->token_ids_size(),
                                                         " entries; allowed are at most ", kMaxDetokenizedTokens)));
  }
  std::vector<TokenId> tokens;
  tokens.reserve(request->token_ids_size());
  for (const int32_t value : request->token_ids()) tokens.push_back(TokenId{value});
  absl::StatusOr<std::string> decoded = text_.tokenizer->Decode(tokens);
  if (decoded.ok()) response->set_text(*std::move(decoded));
  return FinishUnary(context, decoded.status());
}

}  // namespace fermata
