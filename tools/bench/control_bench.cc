// Measures the control plane over real gRPC, with a server in a process of its own whose model only takes time:
//
//   preempt    Preempt to its answer, and Continue to the next token at a reader, beside others that run
//   verbs      single verbs a second, ids a second in calls of many, and one Apply of 1,000 operations
//   churn      what pauses and continues cost the throughput, with twice as many resident as there are slots: a pause
//              and a continue by one Apply, and by a call each
//   interrupt  how soon a more urgent one has its first token while batch work holds every slot
//
//   bazel run --config=opt //tools/bench:control_bench -- --step=10ms
//
// Prints one JSON object a line.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "proto/fermata/v1/control_service.grpc.pb.h"
#include "proto/fermata/v1/inference_service.grpc.pb.h"
#include "tools/bench/bench_server.h"
#include "tools/bench/paced_server.h"

ABSL_FLAG(absl::Duration, step, absl::Milliseconds(10), "how long a step takes");
ABSL_FLAG(int32_t, running, 64, "generations that run");
ABSL_FLAG(int32_t, rounds, 1000, "pauses measured");
ABSL_FLAG(bool, serve, false, "be the server that is measured: for control_bench itself");
ABSL_FLAG(absl::Duration, span, absl::Seconds(5), "how long rates are measured");

namespace fermata {
namespace {

constexpr int kVerbClients = 16;

// One reader of a generation, on the thread that also calls: so nothing but the stream is between it and a token.
class TokenReader {
 public:
  TokenReader(BenchServer& bench, const std::string& id) {
    v1::AttachRequest request;
    request.set_generation_id(id);
    reader_ = bench.data().Attach(&context_, request);
  }

  ~TokenReader() {
    context_.TryCancel();
    reader_->Finish();
  }

  // Reads up to a notice of a pause: no token is then under way.
  void AwaitPause() {
    v1::GenerateResponse message;
    while (reader_->Read(&message) && message.notice().state() != v1::Generation::PAUSED) continue;
  }

  // Reads up to a token of a later step than `step`.
  void AwaitTokenAfter(int64_t step) {
    v1::GenerateResponse message;
    while (reader_->Read(&message) && message.chunk().step() <= step) continue;
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader_;
};

double Percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(share * static_cast<double>(values.size())))];
}

double MillisecondsSince(absl::Time begin) { return absl::ToDoubleMilliseconds(absl::Now() - begin); }

void MeasurePreempt() {
  const int32_t running = absl::GetFlag(FLAGS_running);
  const absl::Duration step = absl::GetFlag(FLAGS_step);
  BenchServer bench(running, step);
  for (int32_t i = 0; i < running; ++i) bench.Enqueue(absl::StrCat("g", i), BenchServer::Spec());
  bench.AwaitRunning(running);
  TokenReader reader(bench, "g0");
  std::vector<double> preempt_ms;
  std::vector<double> continue_ms;
  bench.TakeGapsUs();
  for (int32_t round = 0; round < absl::GetFlag(FLAGS_rounds); ++round) {
    // Two verbs in 40 ms are 50 a second; at another moment of the step every time.
    absl::SleepFor(absl::Milliseconds(20) + absl::Microseconds(137 * (round % 73)));
    const absl::Time preempt = absl::Now();
    const int64_t last_step = bench.Preempt("g0").step();
    preempt_ms.push_back(MillisecondsSince(preempt));
    reader.AwaitPause();
    absl::SleepFor(absl::Milliseconds(15) + absl::Microseconds(211 * (round % 47)));
    const absl::Time resume = absl::Now();
    bench.Continue("g0");
    reader.AwaitTokenAfter(last_step);
    continue_ms.push_back(MillisecondsSince(resume));
  }
  const std::vector<double> gaps_us = bench.TakeGapsUs();
  absl::PrintF(
      "{\"bench\":\"preempt\",\"running\":%d,\"step_ms\":%.1f,\"preempt_to_ack_ms_p50\":%.2f,"
      "\"preempt_to_ack_ms_p99\":%.2f,\"continue_to_token_ms_p50\":%.2f,\"continue_to_token_ms_p99\":%.2f,"
      "\"gap_us_p50\":%.0f,\"gap_us_p99\":%.0f}\n",
      running, absl::ToDoubleMilliseconds(step), Percentile(preempt_ms, 0.5), Percentile(preempt_ms, 0.99),
      Percentile(continue_ms, 0.5), Percentile(continue_ms, 0.99), Percentile(gaps_us, 0.5), Percentile(gaps_us, 0.99));
}

// Calls `one(client, n)` from several clients at once, and returns how often a second.
template <typename One>
double RateOf(int clients, One one) {
  std::atomic<int64_t> count = 0;
  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  const absl::Time begin = absl::Now();
  for (int client = 0; client < clients; ++client) {
    threads.emplace_back([&, client] {
      for (int64_t n = 0; !stop; ++n, ++count) one(client, n);
    });
  }
  absl::SleepFor(absl::GetFlag(FLAGS_span));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  return static_cast<double>(count) / absl::ToDoubleSeconds(absl::Now() - begin);
}

void MeasureVerbs() {
  constexpr int kIds = 10000;
  constexpr int kOperations = 1000;
  BenchServer bench(/*slots=*/1, absl::Milliseconds(1));
  v1::ApplyRequest enqueue;
  for (int i = 0; i < kIds; ++i) {
    v1::EnqueueRequest* one = enqueue.add_operations()->mutable_enqueue();
    one->set_generation_id(absl::StrCat("g", i));
    *one->mutable_spec() = BenchServer::Spec(0, 1);
    one->set_hold(true);
  }
  bench.Do(&v1::ControlService::Stub::Apply, enqueue);
  const double single = RateOf(kVerbClients, [&](int client, int64_t n) {
    v1::SetPriorityRequest request;
    request.add_generation_ids(absl::StrCat("g", client));
    request.set_priority(static_cast<int32_t>(n % 100));
    bench.Do(&v1::ControlService::Stub::SetPriority, request);
  });
  v1::SetPriorityRequest many;
  for (int i = 0; i < kOperations; ++i) many.add_generation_ids(absl::StrCat("g", i));
  const double calls = RateOf(2, [&](int, int64_t n) {
    v1::SetPriorityRequest request = many;
    request.set_priority(static_cast<int32_t>(n % 100));
    bench.Do(&v1::ControlService::Stub::SetPriority, request);
  });
  v1::ApplyRequest apply;
  apply.set_atomic(true);
  for (int i = 0; i < kOperations; ++i) {
    v1::SetPriorityRequest* one = apply.add_operations()->mutable_set_priority();
    one->add_generation_ids(absl::StrCat("g", i));
    one->set_priority(i);
  }
  std::vector<double> apply_ms;
  for (int round = 0; round < 50; ++round) {
    const absl::Time begin = absl::Now();
    bench.Do(&v1::ControlService::Stub::Apply, apply);
    apply_ms.push_back(MillisecondsSince(begin));
  }
  absl::PrintF(
      "{\"bench\":\"verbs\",\"clients\":%d,\"single_verbs_per_s\":%.0f,\"ids_per_s_in_calls_of_%d\":%.0f,"
      "\"apply_operations\":%d,\"apply_ms_p50\":%.2f}\n",
      kVerbClients, single, kOperations, calls * kOperations, kOperations, Percentile(apply_ms, 0.5));
}

// Output tokens a second over the span, while `meanwhile` is called again and again.
template <typename Meanwhile>
double Throughput(BenchServer& bench, Meanwhile meanwhile) {
  const int64_t before = bench.GetEngine().totals().output_token_count();
  const absl::Time begin = absl::Now();
  while (absl::Now() - begin < absl::GetFlag(FLAGS_span)) meanwhile();
  const int64_t after = bench.GetEngine().totals().output_token_count();
  return static_cast<double>(after - before) / absl::ToDoubleSeconds(absl::Now() - begin);
}

std::string Id(int32_t n) { return absl::StrCat("g", n); }

// Twice as many resident generations as slots: who runs, who waits for a slot, and who is paused.
class Places {
 public:
  // Begins with a quarter paused and a quarter waiting.
  Places(BenchServer& bench, int32_t slots) : bench_(bench) {
    for (int32_t i = 0; i < 2 * slots; ++i) bench.Enqueue(Id(i), BenchServer::Spec());
    bench.AwaitRunning(slots);
    // All resident: each has run before.
    for (int32_t i = 0; i < slots; ++i) bench.Preempt(Id(i));
    bench.AwaitRunning(slots);
    for (int32_t i = slots; i < 2 * slots; ++i) running_.push_back(i);
    for (int32_t i = 0; i < slots; ++i) {
      if (i % 2 == 0) {
        paused_.push_back(i);
      } else {
        bench.Continue(Id(i));
        waiting_.insert(i);
      }
    }
  }

  // A pause and a continue at one boundary; the continued one may run at once.
  void SwapByApply() {
    v1::ApplyRequest swap;
    swap.add_operations()->mutable_preempt()->add_generation_ids(Id(running_.front()));
    swap.add_operations()->mutable_resume()->add_generation_ids(Id(paused_.front()));
    bench_.Do(&v1::ControlService::Stub::Apply, swap);
    Continued();
    Paused();
  }

  // A call for each, one after the other: each takes effect at a boundary of its own.
  void SwapByCalls() {
    bench_.Preempt(Id(running_.front()));
    Paused();
    bench_.Continue(Id(paused_.front()));
    Continued();
  }

 private:
  // The one that has run longest is paused, and its place is taken by the oldest that waits.
  void Paused() {
    paused_.push_back(running_.front());
    running_.pop_front();
    running_.push_back(*waiting_.begin());
    waiting_.erase(waiting_.begin());
  }

  void Continued() {
    waiting_.insert(paused_.front());
    paused_.pop_front();
  }

  BenchServer& bench_;
  std::deque<int32_t> running_;
  std::deque<int32_t> paused_;
  std::set<int32_t> waiting_;  // in the order of their arrival
};

void PrintChurn(const char* calls, int32_t swaps, double quiet, double churned,
                const std::vector<double>& quiet_gaps_us, const std::vector<double>& gaps_us) {
  absl::PrintF(
      "{\"bench\":\"churn\",\"by\":\"%s\",\"swaps\":%d,\"tokens_per_s_quiet\":%.0f,\"tokens_per_s_churned\":%.0f,"
      "\"cost_percent\":%.2f,\"gap_us_p50_quiet\":%.0f,\"gap_us_p50\":%.0f,\"gap_us_p99\":%.0f}\n",
      calls, swaps, quiet, churned, 100 * (1 - churned / quiet), Percentile(quiet_gaps_us, 0.5),
      Percentile(gaps_us, 0.5), Percentile(gaps_us, 0.99));
}

// Quiet before and after, so that a machine that slows down is not taken for a cost.
void MeasureChurn() {
  const int32_t slots = absl::GetFlag(FLAGS_running);
  BenchServer bench(slots, absl::GetFlag(FLAGS_step));
  Places places(bench, slots);
  const auto rest = [] { absl::SleepFor(absl::Milliseconds(20)); };
  Throughput(bench, rest);
  bench.TakeGapsUs();
  const auto measure = [&](const char* by, void (Places::*swap)()) {
    const double before = Throughput(bench, rest);
    std::vector<double> quiet_gaps_us = bench.TakeGapsUs();
    int32_t swaps = 0;
    const absl::Time begin = absl::Now();
    const double churned = Throughput(bench, [&] {
      (places.*swap)();
      ++swaps;
      absl::SleepFor(begin + swaps * absl::Milliseconds(20) - absl::Now());
    });
    const std::vector<double> gaps_us = bench.TakeGapsUs();
    const double after = Throughput(bench, rest);
    for (const double gap : bench.TakeGapsUs()) quiet_gaps_us.push_back(gap);
    PrintChurn(by, swaps, (before + after) / 2, churned, quiet_gaps_us, gaps_us);
  };
  measure("apply", &Places::SwapByApply);
  measure("calls", &Places::SwapByCalls);
}

void MeasureInterrupt() {
  const int32_t slots = absl::GetFlag(FLAGS_running);
  const absl::Duration step = absl::GetFlag(FLAGS_step);
  BenchServer bench(slots, step);
  for (int32_t i = 0; i < slots; ++i) bench.Enqueue(absl::StrCat("batch", i), BenchServer::Spec(/*priority=*/10));
  bench.AwaitRunning(slots);
  std::vector<double> first_token_ms;
  int64_t most_steps = 0;
  for (int round = 0; round < 50; ++round) {
    absl::SleepFor(absl::Milliseconds(15) + absl::Microseconds(137 * round));
    v1::GenerateRequest request;
    *request.mutable_spec() = BenchServer::Spec(/*priority=*/0, /*max_tokens=*/1);
    const absl::Time begin = absl::Now();
    grpc::ClientContext context;
    const auto reader = bench.data().Generate(&context, request);
    v1::GenerateResponse message;
    int64_t accepted_step = 0;
    while (reader->Read(&message)) {
      if (message.has_accepted()) accepted_step = message.accepted().step();
      if (!message.has_chunk()) continue;
      first_token_ms.push_back(MillisecondsSince(begin));
      most_steps = std::max(most_steps, message.chunk().step() - accepted_step);
    }
    reader->Finish();
  }
  absl::PrintF(
      "{\"bench\":\"interrupt\",\"slots\":%d,\"step_ms\":%.1f,\"first_token_ms_p50\":%.2f,\"first_token_ms_p99\":%.2f,"
      "\"steps_after_accepted_at_most\":%d}\n",
      slots, absl::ToDoubleMilliseconds(step), Percentile(first_token_ms, 0.5), Percentile(first_token_ms, 0.99),
      most_steps);
}

}  // namespace
}  // namespace fermata

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  if (absl::GetFlag(FLAGS_serve)) {
    fermata::ServePaced(absl::GetFlag(FLAGS_running), absl::GetFlag(FLAGS_step));
    return 0;
  }
  fermata::MeasurePreempt();
  fermata::MeasureVerbs();
  fermata::MeasureChurn();
  fermata::MeasureInterrupt();
  return 0;
}
