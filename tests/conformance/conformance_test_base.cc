#include "tests/conformance/conformance_test_base.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "tests/conformance/small_runner.h"

namespace fermata {
namespace {

constexpr std::chrono::seconds kPatience(60);
constexpr std::chrono::milliseconds kPoll(2);

std::unique_ptr<ModelRunner> MakeBrakedRunner(const EngineOptions& options, std::chrono::milliseconds step) {
  FakeModelRunnerOptions model;
  model.before_run = [step](const Batch&) {
    std::this_thread::sleep_for(step);
    return absl::OkStatus();
  };
  return MakeFakeRunner(options, std::move(model));
}

template <typename Request>
void AddIds(const std::vector<std::string>& ids, Request& request) {
  for (const std::string& id : ids) request.add_generation_ids(id);
}

}  // namespace

EngineOptions ConformanceTestBase::RoomyOptions() {
  EngineOptions options;
  options.max_running = 8;
  options.context_tokens = 60000;
  options.block_count = 40000;
  return options;
}

void ConformanceTestBase::Serve(const EngineOptions& options, int64_t host_block_count,
                                std::chrono::milliseconds step) {
  const char* const backend = std::getenv("FERMATA_CONFORMANCE_BACKEND");
  Serve(options, host_block_count,
        backend == nullptr ? MakeBrakedRunner(options, step) : MakeSmallRunner(backend, step, options));
}

void ConformanceTestBase::Serve(const EngineOptions& options, int64_t host_block_count,
                                std::unique_ptr<ModelRunner> runner) {
  server_ = std::make_unique<TestServer>(TestServer::Options{.engine = options, .host_block_count = host_block_count},
                                         FakeModelText(), std::move(runner));
}

v1::GenerationSpec ConformanceTestBase::Spec(int32_t max_tokens, int32_t priority, int32_t prompt_tokens) {
  v1::GenerationSpec spec;
  for (int32_t i = 0; i < prompt_tokens; ++i) spec.mutable_prompt()->mutable_token_ids()->add_token_ids(i % 26);
  spec.mutable_sampling()->set_max_tokens(max_tokens);
  spec.mutable_sampling()->set_temperature(0);
  spec.mutable_sampling()->set_seed(7);
  spec.mutable_sampling()->set_ignore_eos(true);
  spec.set_priority(priority);
  return spec;
}

v1::GenerateRequest ConformanceTestBase::Request(const std::string& id, const v1::GenerationSpec& spec) {
  v1::GenerateRequest request;
  request.set_generation_id(id);
  *request.mutable_spec() = spec;
  return request;
}

v1::AttachRequest ConformanceTestBase::AttachAt(const std::string& id, int64_t offset) {
  v1::AttachRequest request;
  request.set_generation_id(id);
  request.set_offset(offset);
  return request;
}

grpc::Status ConformanceTestBase::TryEnqueue(const std::string& id, const v1::GenerationSpec& spec, bool hold,
                                             v1::Generation* generation) {
  v1::EnqueueRequest request;
  request.set_generation_id(id);
  *request.mutable_spec() = spec;
  request.set_hold(hold);
  grpc::ClientContext context;
  v1::Generation response;
  return control().Enqueue(&context, request, generation == nullptr ? &response : generation);
}

void ConformanceTestBase::Enqueue(const std::string& id, const v1::GenerationSpec& spec, bool hold) {
  const grpc::Status status = TryEnqueue(id, spec, hold);
  ASSERT_TRUE(status.ok()) << status.error_message();
}

v1::OperationResults ConformanceTestBase::Preempt(const std::vector<std::string>& ids, const std::string& reason) {
  v1::PreemptRequest request;
  AddIds(ids, request);
  request.set_reason(reason);
  grpc::ClientContext context;
  v1::OperationResults results;
  const grpc::Status status = control().Preempt(&context, request, &results);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return results;
}

v1::OperationResults ConformanceTestBase::Continue(const std::vector<std::string>& ids) {
  v1::ContinueRequest request;
  AddIds(ids, request);
  grpc::ClientContext context;
  v1::OperationResults results;
  const grpc::Status status = control().Continue(&context, request, &results);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return results;
}

v1::OperationResults ConformanceTestBase::Abort(const std::vector<std::string>& ids) {
  v1::AbortRequest request;
  AddIds(ids, request);
  grpc::ClientContext context;
  v1::OperationResults results;
  const grpc::Status status = control().Abort(&context, request, &results);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return results;
}

v1::OperationResults ConformanceTestBase::SetPriority(const std::vector<std::string>& ids, int32_t priority) {
  v1::SetPriorityRequest request;
  AddIds(ids, request);
  request.set_priority(priority);
  grpc::ClientContext context;
  v1::OperationResults results;
  const grpc::Status status = control().SetPriority(&context, request, &results);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return results;
}

v1::Generation ConformanceTestBase::Get(const std::string& id) {
  v1::GetGenerationRequest request;
  request.set_generation_id(id);
  grpc::ClientContext context;
  v1::Generation generation;
  const grpc::Status status = control().GetGeneration(&context, request, &generation);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return generation;
}

v1::Engine ConformanceTestBase::GetEngine() {
  grpc::ClientContext context;
  v1::Engine engine;
  const grpc::Status status = control().GetEngine(&context, {}, &engine);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return engine;
}

v1::Generation ConformanceTestBase::AwaitState(const std::string& id, v1::Generation::State state) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    v1::Generation generation = Get(id);
    if (generation.state() == state) return generation;
    std::this_thread::sleep_for(kPoll);
  }
  ADD_FAILURE() << id << " never becomes " << v1::Generation::State_Name(state);
  return {};
}

v1::Generation ConformanceTestBase::AwaitFinished(const std::string& id, v1::Generation::FinishReason reason) {
  v1::Generation generation = AwaitState(id, v1::Generation::FINISHED);
  EXPECT_EQ(generation.finish_reason(), reason) << id << ": " << generation.error_message();
  return generation;
}

std::vector<std::string> ConformanceTestBase::StartOrder(std::vector<std::string> ids) {
  std::vector<std::pair<int64_t, std::string>> first_steps;
  for (const std::string& id : ids) {
    AwaitState(id, v1::Generation::FINISHED);
    // The step of its first token: a replay carries steps as they were.
    StreamReader reader(data(), AttachAt(id, 0));
    reader.AwaitFinish();
    const std::vector<v1::GenerateResponse> messages = reader.messages();
    const auto chunk = std::find_if(messages.begin(), messages.end(), [](const auto& m) { return m.has_chunk(); });
    // A chunk has the step of its last token; tokens of an undisturbed generation come one a step.
    const int64_t step = chunk == messages.end() ? 0 : chunk->chunk().step() - chunk->chunk().token_ids_size() + 1;
    first_steps.emplace_back(step, id);
  }
  std::sort(first_steps.begin(), first_steps.end());
  std::vector<std::string> order;
  for (const auto& [step, id] : first_steps) order.push_back(id);
  return order;
}

}  // namespace fermata
