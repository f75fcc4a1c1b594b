#include "tests/fakes/test_server.h"

#include <utility>

#include "engine/model/chat_template.h"
#include "engine/runtime/kv_tiers.h"
#include "glog/logging.h"
#include "grpcpp/create_channel.h"
#include "tests/fakes/fake_tokenizer.h"

namespace fermata {
namespace {

// What readers may take to fetch their last message. A test whose readers do not read waits so long.
constexpr absl::Duration kGrace = absl::Seconds(2);

std::unique_ptr<Listener> Listen(grpc::Service& service) {
  absl::StatusOr<std::unique_ptr<Listener>> listener = Listener::Start({"127.0.0.1:0"}, service);
  CHECK(listener.ok()) << std::string(listener.status().message());
  return *std::move(listener);
}

// Subchannels are shared by address unless told otherwise, and then one client's end is not felt.
std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetMaxReceiveMessageSize(-1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

ModelText WithContext(ModelText text, int32_t context_tokens) {
  text.context_tokens = context_tokens;
  return text;
}

const EngineOptions& Valid(const EngineOptions& options) {
  const absl::Status status = options.Validate();
  CHECK(status.ok()) << std::string(status.message());
  return options;
}

}  // namespace

TestServer::TestServer(const Options& options, const ModelText& text, std::unique_ptr<ModelRunner> runner)
    : text_(WithContext(text, options.engine.context_tokens)),
      runtime_options_(RuntimeOptions(options, *runner)),
      runtime_(runtime_options_, *text_.tokenizer, std::move(runner), clock_),
      inference_service_(runtime_, text_, options.inference),
      control_service_(runtime_, text_),
      data_listener_(Listen(inference_service_)),
      control_listener_(Listen(control_service_)),
      data_(v1::InferenceService::NewStub(NewDataChannel())),
      control_(v1::ControlService::NewStub(NewControlChannel())) {}

TestServer::~TestServer() { Stop(); }

EngineRuntime::Options TestServer::RuntimeOptions(const Options& options, ModelRunner& runner) {
  EngineRuntime::Options runtime = {.engine = options.engine, .max_pending_commands = options.max_pending_commands};
  absl::StatusOr<KvTiers> tiers =
      OpenKvTiers({.host_bytes = options.host_block_count * runner.kv_block_bytes()}, runner, runtime.engine);
  CHECK(tiers.ok()) << std::string(tiers.status().message());
  runtime.tiers = *std::move(tiers);
  Valid(runtime.engine);
  return runtime;
}

std::shared_ptr<grpc::Channel> TestServer::NewDataChannel() const { return Connect(data_address()); }

std::shared_ptr<grpc::Channel> TestServer::NewControlChannel() const { return Connect(control_address()); }

void TestServer::Stop() {
  if (std::exchange(stopped_, true)) return;
  runtime_.Shutdown("the server has ended");
  data_listener_->Shutdown(kGrace);
  control_listener_->Shutdown(kGrace);
}

const ModelText& FakeModelText() {
  static const ModelText* const text = [] {
    auto* made = new ModelText;
    static const FakeTokenizer* const tokenizer = new FakeTokenizer;
    static const ChatTemplate* const chat_template = [] {
      absl::StatusOr<std::unique_ptr<ChatTemplate>> recognised =
          RecogniseChatTemplate("{% for m in messages %}<|im_start|>{{ m.role }}<|im_end|>{% endfor %}");
      CHECK(recognised.ok()) << std::string(recognised.status().message());
      return recognised->release();
    }();
    made->info.name = "fake model";
    made->info.family = "fake";
    made->info.quantization = "none";
    made->info.context_length = 2048;
    made->info.vocabulary_size = tokenizer->vocabulary_size();
    made->info.has_chat_template = true;
    made->info.end_of_generation_token_ids = {FakeTokenDecoder::kEnd};
    made->tokenizer = tokenizer;
    made->chat_template = chat_template;
    return made;
  }();
  return *text;
}

std::unique_ptr<FakeModelRunner> MakeFakeRunner(const EngineOptions& engine, FakeModelRunnerOptions model) {
  model.block_count = engine.block_count;
  model.block_tokens = engine.block_tokens;
  model.vocabulary_size = FakeModelText().info.vocabulary_size;
  model.max_step_tokens = engine.step_tokens;
  model.max_rows = engine.max_running;
  return std::make_unique<FakeModelRunner>(std::move(model));
}

}  // namespace fermata
