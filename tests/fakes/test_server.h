// The whole server but for its process: engine, threads, both services, both listeners on free ports of 127.0.0.1. For
// tests over real gRPC, with any model: a fake one, a tiny one, or one made by the test.

#ifndef FERMATA_TESTS_FAKES_TEST_SERVER_H_
#define FERMATA_TESTS_FAKES_TEST_SERVER_H_

#include <cstddef>
#include <memory>
#include <string>

#include "control/control_service.h"
#include "engine/core/engine_options.h"
#include "engine/core/model_runner.h"
#include "engine/runtime/clock.h"
#include "engine/runtime/engine_runtime.h"
#include "engine/serving/inference_service.h"
#include "engine/serving/listener.h"
#include "engine/serving/model_text.h"
#include "grpcpp/channel.h"
#include "proto/fermata/v1/control_service.grpc.pb.h"
#include "proto/fermata/v1/inference_service.grpc.pb.h"
#include "tests/fakes/fake_model_runner.h"

namespace fermata {

// Serves from construction to Stop() or destruction. Crashes the test if a port cannot be had or the options are not
// valid.
class TestServer {
 public:
  // What a test may choose besides the engine's options.
  struct Options {
    EngineOptions engine;
    InferenceService::Options inference;
    size_t max_pending_commands = 65536;
    int64_t host_block_count = 0;  // of memory for KV that leaves the device
  };

  // `text` is copied, with the engine's context; what it points to (the tokenizer) must outlive the server.
  TestServer(const Options& options, const ModelText& text, std::unique_ptr<ModelRunner> runner);

  // Stop(), if it was not called.
  ~TestServer();

  // For most tests. Channels are shared; every call has wait_for_ready unset.
  v1::InferenceService::Stub& data() { return *data_; }
  v1::ControlService::Stub& control() { return *control_; }

  // A connection of its own: for clients that vanish, or that read slowly.
  std::shared_ptr<grpc::Channel> NewDataChannel() const;
  std::shared_ptr<grpc::Channel> NewControlChannel() const;

  // "127.0.0.1:PORT".
  const std::string& data_address() const { return data_listener_->addresses().front(); }
  const std::string& control_address() const { return control_listener_->addresses().front(); }

  EngineRuntime& runtime() { return runtime_; }
  Listener& data_listener() { return *data_listener_; }
  Listener& control_listener() { return *control_listener_; }

  // Ends as the process does after a drain: what lives is aborted, readers get their finish, listeners close. A runner
  // that is held by a gate must be let go first.
  void Stop();

 private:
  static EngineRuntime::Options RuntimeOptions(const Options& options, ModelRunner& runner);

  const ModelText text_;
  MonotonicClock clock_;
  const EngineRuntime::Options runtime_options_;
  EngineRuntime runtime_;
  InferenceService inference_service_;
  ControlService control_service_;
  std::unique_ptr<Listener> data_listener_;
  std::unique_ptr<Listener> control_listener_;
  std::unique_ptr<v1::InferenceService::Stub> data_;
  std::unique_ptr<v1::ControlService::Stub> control_;
  bool stopped_ = false;
};

// The text side of a model that has FakeTokenizer's vocabulary, and a chat template. Lives for ever.
const ModelText& FakeModelText();

// A runner for FakeModelText() that fits `engine`; `model` adds its brakes and faults, its sizes are replaced.
std::unique_ptr<FakeModelRunner> MakeFakeRunner(const EngineOptions& engine, FakeModelRunnerOptions model = {});

}  // namespace fermata

#endif  // FERMATA_TESTS_FAKES_TEST_SERVER_H_
