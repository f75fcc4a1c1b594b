// An engine in this process, and a client of it that has no network between.

#ifndef FERMATA_TOOLS_BENCH_GPU_ENGINE_SESSION_H_
#define FERMATA_TOOLS_BENCH_GPU_ENGINE_SESSION_H_

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/core/commands.h"
#include "engine/core/engine_options.h"
#include "engine/core/report.h"
#include "engine/core/token_decoder.h"
#include "engine/runtime/clock.h"
#include "engine/runtime/engine_runtime.h"
#include "engine/runtime/report_observer.h"
#include "tools/bench/gpu/measured_runner.h"

namespace fermata {

// What a client saw of one generation; times are those at which it was told.
struct SeenGeneration {
  absl::Time asked = absl::InfinitePast();
  absl::Time first_token = absl::InfiniteFuture();
  absl::Time last_token = absl::InfinitePast();
  int64_t tokens = 0;
  int64_t last_step = -1;  // of its last token
  KvTier tier = KvTier::kDevice;
  bool finished = false;
};

// Ends the process where the engine answers with an error: a measurement goes well or not at all. Any thread may call
// what is public.
class EngineSession : private ReportObserver {
 public:
  // `decoder` and `records` must outlive this. With `host_bytes` there is a tier for KV in the host's memory.
  EngineSession(EngineOptions options, int64_t host_bytes, const TokenDecoder& decoder, RunnerRecords& records);
  ~EngineSession() override;

  RunnerRecords& records() { return records_; }

  // Asks for a generation of random tokens, greedy, that ends at `max_tokens`, and does not wait. The same prompt never
  // comes twice.
  void Enqueue(const std::string& id, int32_t prompt_tokens, int32_t max_tokens, int32_t priority = 0);

  // Waits for the answer; returns the step from which it holds.
  int64_t Preempt(const std::vector<std::string>& ids, KvTier tier = KvTier::kNone);
  int64_t Continue(const std::vector<std::string>& ids);

  // The first are paused and the others continued at one boundary.
  void Swap(const std::vector<std::string>& paused, const std::vector<std::string>& continued);

  // Waits until all that `ids` name have at least one token, or this one's last is of a later step than `step`.
  void AwaitFirstTokens(const std::vector<std::string>& ids);
  void AwaitTokenAfter(const std::string& id, int64_t step);
  void AwaitTier(const std::string& id, KvTier tier);
  void AwaitFinished(int64_t count);
  void AwaitTokens(int64_t total);

  // Of all generations so far.
  int64_t token_total();
  std::map<std::string, SeenGeneration> Seen();

 private:
  void OnReport(const Report& report, absl::Time now, absl::Duration step_duration) override;

  template <typename TypedCommand>
  Reply Call(TypedCommand command);
  void Await(const std::function<bool()>& condition);  // is called with mutex_ held

  RunnerRecords& records_;
  const int32_t vocabulary_size_;
  std::mt19937 random_;
  MonotonicClock clock_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<GenerationKey, SeenGeneration> seen_;  // guarded by mutex_, as is the rest
  std::map<std::string, GenerationKey> keys_;
  std::map<std::string, absl::Time> asked_;
  int64_t token_total_ = 0;
  int64_t finished_total_ = 0;

  std::unique_ptr<EngineRuntime> runtime_;  // the last to come and the first to go
};

}  // namespace fermata

#endif  // FERMATA_TOOLS_BENCH_GPU_ENGINE_SESSION_H_
