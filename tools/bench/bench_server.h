// A server in the process of a benchmark, and calls that must succeed. For control_bench.

#ifndef FERMATA_TOOLS_BENCH_BENCH_SERVER_H_
#define FERMATA_TOOLS_BENCH_BENCH_SERVER_H_

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "proto/fermata/v1/control_service.grpc.pb.h"
#include "proto/fermata/v1/inference_service.grpc.pb.h"
#include "tests/fakes/fake_tokenizer.h"
#include "tests/fakes/test_server.h"
#include "tools/bench/paced_runner.h"

namespace fermata {

// A server with so many slots, and room for all that a measurement wants.
class BenchServer {
 public:
  BenchServer(int32_t slots, absl::Duration step)
      : server_(Options(slots), FakeModelText(), std::make_unique<PacedRunner>(step, gaps_)) {}

  v1::ControlService::Stub& control() { return server_.control(); }
  v1::InferenceService::Stub& data() { return server_.data(); }
  PacedRunner::Gaps& gaps() { return gaps_; }

  static v1::GenerationSpec Spec(int32_t priority = 0, int32_t max_tokens = kForever) {
    v1::GenerationSpec spec;
    spec.mutable_prompt()->mutable_token_ids()->add_token_ids(1);
    spec.mutable_sampling()->set_max_tokens(max_tokens);
    spec.mutable_sampling()->set_ignore_eos(true);
    spec.set_priority(priority);
    return spec;
  }

  void Enqueue(const std::string& id, const v1::GenerationSpec& spec) {
    v1::EnqueueRequest request;
    request.set_generation_id(id);
    *request.mutable_spec() = spec;
    grpc::ClientContext context;
    v1::Generation generation;
    Check(control().Enqueue(&context, request, &generation));
  }

  v1::Engine GetEngine() {
    grpc::ClientContext context;
    v1::Engine engine;
    Check(control().GetEngine(&context, {}, &engine));
    return engine;
  }

  // Waits until so many run.
  void AwaitRunning(int64_t count) {
    while (GetEngine().state_counts().running_count() < count) absl::SleepFor(absl::Milliseconds(5));
  }

  template <typename Request>
  v1::OperationResults Do(grpc::Status (v1::ControlService::Stub::*method)(grpc::ClientContext*, const Request&,
                                                                           v1::OperationResults*),
                          const Request& request) {
    grpc::ClientContext context;
    v1::OperationResults results;
    Check((control().*method)(&context, request, &results));
    return results;
  }

  v1::OperationResults Preempt(const std::string& id) {
    v1::PreemptRequest request;
    request.add_generation_ids(id);
    return Do(&v1::ControlService::Stub::Preempt, request);
  }

  v1::OperationResults Continue(const std::string& id) {
    v1::ContinueRequest request;
    request.add_generation_ids(id);
    return Do(&v1::ControlService::Stub::Continue, request);
  }

 private:
  static constexpr int32_t kForever = 50000;

  static TestServer::Options Options(int32_t slots) {
    TestServer::Options options;
    options.engine.max_running = slots;
    options.engine.context_tokens = 2 * kForever;
    options.engine.block_tokens = 4096;
    options.engine.block_count = 1 << 20;
    return options;
  }

  static void Check(const grpc::Status& status) {
    if (status.ok()) return;
    absl::FPrintF(stderr, "control_bench: %s\n", status.error_message());
    std::abort();
  }

  PacedRunner::Gaps gaps_;
  TestServer server_;
};

}  // namespace fermata

#endif  // FERMATA_TOOLS_BENCH_BENCH_SERVER_H_
