// A server in a process of its own, as it is used, and calls that must succeed. For control_bench.

#ifndef FERMATA_TOOLS_BENCH_BENCH_SERVER_H_
#define FERMATA_TOOLS_BENCH_BENCH_SERVER_H_

#include <sys/types.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proto/fermata/v1/control_service.grpc.pb.h"
#include "proto/fermata/v1/inference_service.grpc.pb.h"

namespace fermata {

// A server whose model only takes time, with so many slots and room for all that a measurement wants. It is this
// binary once more, with --serve, so that client and server share a machine but neither threads nor a poller.
// Whatever goes wrong ends the process with a message.
class BenchServer {
 public:
  BenchServer(int32_t slots, absl::Duration step);

  // Ends the server's process.
  ~BenchServer();

  BenchServer(const BenchServer&) = delete;
  BenchServer& operator=(const BenchServer&) = delete;

  v1::ControlService::Stub& control() { return *control_; }
  v1::InferenceService::Stub& data() { return *data_; }

  // What the engine took between two runs of the model, in microseconds, each since the last call.
  std::vector<double> TakeGapsUs();

  static v1::GenerationSpec Spec(int32_t priority = 0, int32_t max_tokens = kForever);

  void Enqueue(const std::string& id, const v1::GenerationSpec& spec);
  v1::Engine GetEngine();

  // Waits until so many run.
  void AwaitRunning(int64_t count);

  template <typename Request>
  v1::OperationResults Do(grpc::Status (v1::ControlService::Stub::*method)(grpc::ClientContext*, const Request&,
                                                                           v1::OperationResults*),
                          const Request& request) {
    grpc::ClientContext context;
    v1::OperationResults results;
    Check((control().*method)(&context, request, &results));
    return results;
  }

  v1::OperationResults Preempt(const std::string& id);
  v1::OperationResults Continue(const std::string& id);

 private:
  static constexpr int32_t kForever = 50000;

  static void Check(const grpc::Status& status);

  pid_t process_ = -1;
  FILE* to_ = nullptr;    // the server's standard input; its end is the server's
  FILE* from_ = nullptr;  // the server's standard output
  std::unique_ptr<v1::ControlService::Stub> control_;
  std::unique_ptr<v1::InferenceService::Stub> data_;
};

}  // namespace fermata

#endif  // FERMATA_TOOLS_BENCH_BENCH_SERVER_H_
