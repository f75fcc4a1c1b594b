// Clients of a server that runs: so many streams at once over gRPC, on one connection and from one thread, which waits
// for the next message of any of them. It shares the machine with the server, so it is made to cost little.
//
//   bazel-bin/tools/bench/serve_load --address=127.0.0.1:50051 --clients=8
//
// Prints one JSON object: tokens per second while all streams decode (from the step that brings the last first token to
// the first one's end, whole steps), the time to the first token of each, from its request on, and the time from one
// message to the next. Where a message brings several tokens, the later ones came after no time.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_format.h"
#include "grpcpp/grpcpp.h"
#include "grpcpp/support/async_stream.h"
#include "proto/fermata/v1/inference_service.grpc.pb.h"

ABSL_FLAG(std::string, address, "127.0.0.1:50051", "the data plane");
ABSL_FLAG(int32_t, clients, 8, "streams at once");
ABSL_FLAG(int32_t, prompt, 128, "tokens of each prompt");
ABSL_FLAG(int32_t, output, 128, "tokens that each stream decodes");
ABSL_FLAG(double, temperature, 0, "of the sampling; 0: greedy, as the engine's own figure is");

namespace fermata {
namespace {

using Clock = std::chrono::steady_clock;

// When tokens came, in seconds from the begin of the measurement, and of which step each is.
struct Arrivals {
  double request = 0;
  std::vector<double> tokens;
  std::vector<int64_t> steps;
  std::string error;  // empty: the stream ended well
};

double SecondsSince(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

v1::GenerateRequest MakeRequest(int32_t client, uint32_t seed) {
  v1::GenerateRequest request;
  v1::GenerationSpec* spec = request.mutable_spec();
  // Others each time, so that nothing of them is cached; small ones, that every vocabulary has.
  std::minstd_rand random(seed + static_cast<uint32_t>(client) * 7919);
  for (int32_t i = 0; i < absl::GetFlag(FLAGS_prompt); ++i) {
    spec->mutable_prompt()->mutable_token_ids()->add_token_ids(static_cast<int32_t>(256 + random() % 16384));
  }
  spec->mutable_sampling()->set_temperature(static_cast<float>(absl::GetFlag(FLAGS_temperature)));
  spec->mutable_sampling()->set_max_tokens(absl::GetFlag(FLAGS_output));
  spec->mutable_sampling()->set_ignore_eos(true);
  return request;
}

// One stream. Itself the tag of what it waits for: one thing at a time.
class Client {
 public:
  // `begin`: of the measurement.
  Client(v1::InferenceService::Stub& stub, const v1::GenerateRequest& request, Clock::time_point begin,
         grpc::CompletionQueue& queue)
      : begin_(begin) {
    arrivals_.request = SecondsSince(begin_);
    reader_ = stub.AsyncGenerate(&context_, request, &queue, this);
  }

  // What it waited for is here; `ok` as the queue says it. False: the stream has ended.
  bool Proceed(bool ok) {
    if (finishing_) return false;
    if (started_ && ok) {
      const int count = message_.chunk().token_ids_size();
      arrivals_.tokens.insert(arrivals_.tokens.end(), count, SecondsSince(begin_));
      arrivals_.steps.insert(arrivals_.steps.end(), count, message_.chunk().step());
    }
    started_ = true;
    finishing_ = !ok;
    if (ok) {
      reader_->Read(&message_, this);
    } else {
      reader_->Finish(&status_, this);
    }
    return true;
  }

  // What came. REQUIRES: the stream has ended.
  Arrivals Take() {
    if (!status_.ok()) {
      arrivals_.error = status_.error_message();
    } else if (arrivals_.tokens.size() != static_cast<size_t>(absl::GetFlag(FLAGS_output))) {
      arrivals_.error = absl::StrFormat("a stream ended after %d tokens", arrivals_.tokens.size());
    }
    return std::move(arrivals_);
  }

 private:
  const Clock::time_point begin_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientAsyncReader<v1::GenerateResponse>> reader_;
  v1::GenerateResponse message_;
  grpc::Status status_;
  Arrivals arrivals_;
  bool started_ = false;    // the call is under way
  bool finishing_ = false;  // nothing comes but the status
};

// All streams, until each has ended.
std::vector<Arrivals> RunClients(v1::InferenceService::Stub& stub) {
  const int32_t count = absl::GetFlag(FLAGS_clients);
  const uint32_t seed = std::random_device()();
  std::vector<v1::GenerateRequest> requests;
  for (int32_t client = 0; client < count; ++client) requests.push_back(MakeRequest(client, seed));
  grpc::CompletionQueue queue;
  std::vector<std::unique_ptr<Client>> clients;
  const Clock::time_point begin = Clock::now();
  for (const v1::GenerateRequest& request : requests) {
    clients.push_back(std::make_unique<Client>(stub, request, begin, queue));
  }
  void* tag = nullptr;
  bool ok = false;
  for (int32_t running = count; running > 0 && queue.Next(&tag, &ok);) {
    if (!static_cast<Client*>(tag)->Proceed(ok)) --running;
  }
  std::vector<Arrivals> streams;
  for (const std::unique_ptr<Client>& client : clients) streams.push_back(client->Take());
  return streams;
}

double Percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())))];
}

// The part in which all streams decode.
struct Window {
  int64_t first_step = std::numeric_limits<int64_t>::min();  // its tokens are the last before the window
  int64_t last_step = std::numeric_limits<int64_t>::max();   // its tokens are the last of the window
  double begin = 0;
  double end = 0;
  int64_t tokens = 0;
};

Window WindowOf(const std::vector<Arrivals>& streams) {
  Window window;
  for (const Arrivals& stream : streams) {
    window.first_step = std::max(window.first_step, stream.steps.front());
    window.last_step = std::min(window.last_step, stream.steps.back());
  }
  for (const Arrivals& stream : streams) {
    for (size_t i = 0; i < stream.steps.size(); ++i) {
      // A step is here when all of it is.
      if (stream.steps[i] <= window.first_step) window.begin = std::max(window.begin, stream.tokens[i]);
      if (stream.steps[i] <= window.last_step) window.end = std::max(window.end, stream.tokens[i]);
      if (stream.steps[i] > window.first_step && stream.steps[i] <= window.last_step) ++window.tokens;
    }
  }
  return window;
}

// False: no moment had them all.
bool Print(const std::vector<Arrivals>& streams) {
  const Window window = WindowOf(streams);
  if (window.last_step <= window.first_step) return false;
  std::vector<double> first_token_ms;
  std::vector<double> between_ms;
  for (const Arrivals& stream : streams) {
    first_token_ms.push_back(1e3 * (stream.tokens.front() - stream.request));
    for (size_t i = 1; i < stream.tokens.size(); ++i) {
      between_ms.push_back(1e3 * (stream.tokens[i] - stream.tokens[i - 1]));
    }
  }
  const double seconds = window.end - window.begin;
  absl::PrintF(
      "{\"bench\":\"serve\",\"clients\":%d,\"tokens_per_s\":%.1f,\"seconds\":%.2f,\"first_token_ms_p50\":%.1f,"
      "\"first_token_ms_max\":%.1f,\"between_tokens_ms_p50\":%.2f,\"between_tokens_ms_p99\":%.2f}\n",
      streams.size(), static_cast<double>(window.tokens) / seconds, seconds, Percentile(first_token_ms, 0.5),
      Percentile(first_token_ms, 1), Percentile(between_ms, 0.5), Percentile(between_ms, 0.99));
  return true;
}

int Run() {
  const int32_t clients = absl::GetFlag(FLAGS_clients);
  if (clients < 1 || absl::GetFlag(FLAGS_prompt) < 1 || absl::GetFlag(FLAGS_output) < 2) {
    absl::FPrintF(stderr, "serve_load: --clients and --prompt are at least 1, --output at least 2\n");
    return 2;
  }
  const std::unique_ptr<v1::InferenceService::Stub> stub = v1::InferenceService::NewStub(
      grpc::CreateChannel(absl::GetFlag(FLAGS_address), grpc::InsecureChannelCredentials()));
  const std::vector<Arrivals> streams = RunClients(*stub);
  for (const Arrivals& stream : streams) {
    if (stream.error.empty()) continue;
    absl::FPrintF(stderr, "serve_load: %s\n", stream.error);
    return 1;
  }
  if (Print(streams)) return 0;
  absl::FPrintF(stderr, "serve_load: the first stream ended before the last began: raise --output\n");
  return 1;
}

}  // namespace
}  // namespace fermata

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  return fermata::Run();
}
