// Clients of a server that runs: so many streams at once over gRPC, each from a thread that does nothing but wait for
// its next message.
//
//   bazel-bin/tools/bench/serve_load --address=127.0.0.1:50051 --clients=8
//
// Prints one JSON object: tokens per second while all streams decode (from the last first token to the first end), the
// time to the first token of each, from its request on, and the time from one message to the next. Where a message
// brings several tokens, the later ones came after no time.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_format.h"
#include "grpcpp/grpcpp.h"
#include "proto/fermata/v1/inference_service.grpc.pb.h"

ABSL_FLAG(std::string, address, "127.0.0.1:50051", "the data plane");
ABSL_FLAG(int32_t, clients, 8, "streams at once");
ABSL_FLAG(int32_t, prompt, 128, "tokens of each prompt");
ABSL_FLAG(int32_t, output, 128, "tokens that each stream decodes");

namespace fermata {
namespace {

using Clock = std::chrono::steady_clock;

// When tokens came, in seconds from the begin of the measurement.
struct Arrivals {
  double request = 0;
  std::vector<double> tokens;
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
  spec->mutable_sampling()->set_temperature(0);
  spec->mutable_sampling()->set_max_tokens(absl::GetFlag(FLAGS_output));
  spec->mutable_sampling()->set_ignore_eos(true);
  return request;
}

Arrivals RunClient(v1::InferenceService::Stub& stub, const v1::GenerateRequest& request, Clock::time_point begin) {
  Arrivals arrivals;
  grpc::ClientContext context;
  arrivals.request = SecondsSince(begin);
  const std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader = stub.Generate(&context, request);
  v1::GenerateResponse message;
  while (reader->Read(&message)) {
    arrivals.tokens.insert(arrivals.tokens.end(), message.chunk().token_ids_size(), SecondsSince(begin));
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) arrivals.error = status.error_message();
  if (status.ok() && arrivals.tokens.size() != static_cast<size_t>(absl::GetFlag(FLAGS_output))) {
    arrivals.error = absl::StrFormat("a stream ended after %d tokens", arrivals.tokens.size());
  }
  return arrivals;
}

double Percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())))];
}

// False: no moment had them all.
bool Print(const std::vector<Arrivals>& streams) {
  double from = 0;
  double to = streams[0].tokens.back();
  std::vector<double> first_token_ms;
  std::vector<double> between_ms;
  for (const Arrivals& stream : streams) {
    from = std::max(from, stream.tokens.front());
    to = std::min(to, stream.tokens.back());
    first_token_ms.push_back(1e3 * (stream.tokens.front() - stream.request));
    for (size_t i = 1; i < stream.tokens.size(); ++i) {
      between_ms.push_back(1e3 * (stream.tokens[i] - stream.tokens[i - 1]));
    }
  }
  if (to <= from) return false;
  int64_t tokens = 0;
  for (const Arrivals& stream : streams) {
    tokens +=
        std::count_if(stream.tokens.begin(), stream.tokens.end(), [&](double at) { return at > from && at <= to; });
  }
  absl::PrintF(
      "{\"bench\":\"serve\",\"clients\":%d,\"tokens_per_s\":%.1f,\"seconds\":%.2f,\"first_token_ms_p50\":%.1f,"
      "\"first_token_ms_max\":%.1f,\"between_tokens_ms_p50\":%.2f,\"between_tokens_ms_p99\":%.2f}\n",
      streams.size(), static_cast<double>(tokens) / (to - from), to - from, Percentile(first_token_ms, 0.5),
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
  const uint32_t seed = std::random_device()();
  std::vector<Arrivals> streams(clients);
  std::vector<std::thread> threads;
  const Clock::time_point begin = Clock::now();
  for (int32_t client = 0; client < clients; ++client) {
    threads.emplace_back([&, client] { streams[client] = RunClient(*stub, MakeRequest(client, seed), begin); });
  }
  for (std::thread& thread : threads) thread.join();
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
