// Goal: whatever bytes parse as a request are converted or refused with words, before the engine hears of them; what is
// converted keeps to the limits. Method: the first byte says which request of the two services the others are.

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "control/request_checks.h"
#include "control/verb_conversion.h"
#include "engine/model/chat_template.h"
#include "engine/serving/model_text.h"
#include "engine/serving/spec_conversion.h"
#include "glog/logging.h"
#include "google/protobuf/stubs/logging.h"
#include "proto/fermata/v1/control_service.pb.h"
#include "proto/fermata/v1/inference_service.pb.h"
#include "tests/fakes/tiny_tokenizer.h"

namespace fermata {
namespace {

constexpr int kMaxPageSize = 1000;
constexpr int32_t kContextTokens = 64;

const ModelText& Text() {
  static const ModelText* const text = [] {
    auto* made = new ModelText;
    const BpeTokenizer& tokenizer = TinyTokenizer("smollm");
    absl::StatusOr<std::unique_ptr<ChatTemplate>> recognised = RecogniseChatTemplate("<|im_start|><|im_end|>");
    CHECK(recognised.ok());
    made->info.vocabulary_size = tokenizer.vocabulary_size();
    made->context_tokens = kContextTokens;
    made->tokenizer = &tokenizer;
    made->chat_template = recognised->release();
    return made;
  }();
  return *text;
}

template <typename Result>
bool OkOrWords(const Result& result) {
  CHECK(result.ok() || !result.status().message().empty());
  return result.ok();
}

void CheckTokens(const std::vector<TokenId>& tokens) {
  for (const TokenId token : tokens) {
    CHECK_GE(Value(token), 0);
    CHECK_LT(Value(token), Text().info.vocabulary_size);
  }
}

// What the engine relies on.
void CheckSpec(const GenerationSpec& spec) {
  CHECK(!spec.prompt.empty());
  CHECK_LT(spec.prompt.size(), static_cast<size_t>(kContextTokens));
  CheckTokens(spec.prompt);
  CHECK(spec.timeout > absl::ZeroDuration());
  CHECK(spec.sampling.Validate(Text().info.vocabulary_size).ok());
}

void CheckId(const std::string& text) {
  const absl::StatusOr<GenerationId> id = GenerationId::Parse(text);
  if (OkOrWords(id)) CHECK_EQ(id->value(), text);
}

void Convert(const v1::GenerateRequest& request) {
  OkOrWords(ToNewGenerationId(request.generation_id()));
  const absl::StatusOr<GenerationSpec> spec = ToGenerationSpec(request.spec(), OnDisconnect::kAbort, Text());
  if (!OkOrWords(spec)) return;
  CheckSpec(*spec);
  // A retry has the same digest.
  v1::GenerateRequest again;
  CHECK(again.ParseFromString(request.SerializeAsString()));
  CHECK_EQ(DigestBody(again.spec(), /*hold=*/false), DigestBody(request.spec(), /*hold=*/false));
  CHECK_NE(DigestBody(again.spec(), /*hold=*/true), DigestBody(request.spec(), /*hold=*/false));
}

void Convert(const v1::AttachRequest& request) { CheckId(request.generation_id()); }
void Convert(const v1::GetGenerationRequest& request) { CheckId(request.generation_id()); }
void Convert(const v1::GetModelRequest&) {}
void Convert(const v1::GetEngineRequest&) {}

void Convert(const v1::WatchRequest& request) {
  const absl::StatusOr<absl::Duration> interval = ToProgressInterval(request);
  if (OkOrWords(interval)) CHECK(*interval >= absl::ZeroDuration() && *interval <= absl::Minutes(1));
}

void Convert(const v1::TokenizeRequest& request) {
  const auto tokens = request.has_text() ? ToTokens(request.text(), Text()) : ToTokens(request.chat(), Text());
  if (OkOrWords(tokens)) CheckTokens(*tokens);
}

void Convert(const v1::DetokenizeRequest& request) {
  std::vector<TokenId> tokens;
  for (const int32_t value : request.token_ids()) tokens.push_back(TokenId{value});
  OkOrWords(Text().tokenizer->Decode(tokens));
}

void Convert(const v1::EnqueueRequest& request) {
  const absl::StatusOr<EnqueueCommand> command = ToCommand(request, Text());
  if (OkOrWords(command)) CheckSpec(command->spec);
}

void Convert(const v1::ContinueRequest& request) {
  const absl::StatusOr<ContinueCommand> command = ToCommand(request, Text());
  if (OkOrWords(command)) CheckTokens(command->append);
}

void Convert(const v1::ApplyRequest& request) {
  const absl::StatusOr<ApplyCommand> command = ToCommand(request, Text());
  if (OkOrWords(command)) CHECK_EQ(command->operations.size(), static_cast<size_t>(request.operations_size()));
}

void Convert(const v1::ListGenerationsRequest& request) { OkOrWords(ToListCommand(request, kMaxPageSize)); }

void Convert(const v1::OpenSessionRequest& request) {
  const absl::StatusOr<OpenSessionCommand> command = ToCommand(request);
  if (OkOrWords(command)) CHECK(command->ttl >= absl::Seconds(1) && command->ttl <= absl::Hours(1));
}

// The requests without a text: Preempt, Abort, SetPriority, KeepSessionAlive, CloseSession.
template <typename Request>
void Convert(const Request& request) {
  OkOrWords(ToCommand(request));
}

template <typename Request>
void Parse(const std::string& bytes) {
  Request request;
  if (request.ParseFromString(bytes)) Convert(request);
}

// Both services' requests, in the order of their protos. A new one goes to the end: the corpus knows them by number.
using Parser = void (*)(const std::string& bytes);
constexpr Parser kParsers[] = {
    Parse<v1::GenerateRequest>,
    Parse<v1::AttachRequest>,
    Parse<v1::GetModelRequest>,
    Parse<v1::TokenizeRequest>,
    Parse<v1::DetokenizeRequest>,
    Parse<v1::EnqueueRequest>,
    Parse<v1::PreemptRequest>,
    Parse<v1::ContinueRequest>,
    Parse<v1::AbortRequest>,
    Parse<v1::SetPriorityRequest>,
    Parse<v1::ApplyRequest>,
    Parse<v1::GetGenerationRequest>,
    Parse<v1::ListGenerationsRequest>,
    Parse<v1::GetEngineRequest>,
    Parse<v1::WatchRequest>,
    Parse<v1::OpenSessionRequest>,
    Parse<v1::KeepSessionAliveRequest>,
    Parse<v1::CloseSessionRequest>,
};

}  // namespace
}  // namespace fermata

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  // Nobody reads what it says of each string that is not UTF-8.
  static auto* const previous_handler = google::protobuf::SetLogHandler(nullptr);
  static_cast<void>(previous_handler);
  const std::string bytes(data + 1, data + size);
  fermata::kParsers[data[0] % std::size(fermata::kParsers)](bytes);
  return 0;
}
