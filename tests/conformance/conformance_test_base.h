// A server over a fake model whose steps take a millisecond, and the calls that conformance tests make. With cpu or
// cuda in FERMATA_CONFORMANCE_BACKEND the model is a real one, of a few made-up weights, whose steps take a millisecond
// more.

#ifndef FERMATA_TESTS_CONFORMANCE_CONFORMANCE_TEST_BASE_H_
#define FERMATA_TESTS_CONFORMANCE_CONFORMANCE_TEST_BASE_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/core/engine_options.h"
#include "engine/core/model_runner.h"
#include "gtest/gtest.h"
#include "proto/fermata/v1/control_service.grpc.pb.h"
#include "proto/fermata/v1/inference_service.grpc.pb.h"
#include "tests/conformance/stream_reader.h"
#include "tests/fakes/test_server.h"

namespace fermata {

// Order is read from steps and states, never from time. A generation that is to stay RUNNING asks for more tokens than
// any test waits for.
class ConformanceTestBase : public testing::Test {
 protected:
  static constexpr int32_t kForever = 50000;  // tokens: most of a minute

  // Room for everything that a test does not want to be short of.
  static EngineOptions RoomyOptions();

  // Starts the server, with a model of its own, or whose steps take `step`. Called once by each test.
  void Serve(const EngineOptions& options, int64_t host_block_count = 0,
             std::chrono::milliseconds step = std::chrono::milliseconds(1));
  void Serve(const EngineOptions& options, int64_t host_block_count, std::unique_ptr<ModelRunner> runner);

  v1::InferenceService::Stub& data() { return server_->data(); }
  v1::ControlService::Stub& control() { return server_->control(); }
  TestServer& server() { return *server_; }

  // A prompt of `prompt_tokens` tokens and exactly `max_tokens` output tokens.
  static v1::GenerationSpec Spec(int32_t max_tokens, int32_t priority = 0, int32_t prompt_tokens = 4);
  static v1::GenerateRequest Request(const std::string& id, const v1::GenerationSpec& spec);
  static v1::AttachRequest AttachAt(const std::string& id, int64_t offset);

  grpc::Status TryEnqueue(const std::string& id, const v1::GenerationSpec& spec, bool hold = false,
                          v1::Generation* generation = nullptr);
  void Enqueue(const std::string& id, const v1::GenerationSpec& spec, bool hold = false);

  // One result for each id. The RPC itself must be OK.
  v1::OperationResults Preempt(const std::vector<std::string>& ids, const std::string& reason = "");
  v1::OperationResults Continue(const std::vector<std::string>& ids);
  v1::OperationResults Abort(const std::vector<std::string>& ids);
  v1::OperationResults SetPriority(const std::vector<std::string>& ids, int32_t priority);

  v1::Generation Get(const std::string& id);
  v1::Engine GetEngine();

  // Waits until it is in this state; fails the test after a minute.
  v1::Generation AwaitState(const std::string& id, v1::Generation::State state);

  // Waits until it is FINISHED with this reason.
  v1::Generation AwaitFinished(const std::string& id, v1::Generation::FinishReason reason);

  // Waits until all are FINISHED, and returns them in the order in which they first ran.
  std::vector<std::string> StartOrder(std::vector<std::string> ids);

 private:
  std::unique_ptr<TestServer> server_;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_CONFORMANCE_CONFORMANCE_TEST_BASE_H_
