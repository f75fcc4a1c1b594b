// A runner that several engines use one after the other, and that remembers what it did when.

#ifndef FERMATA_TOOLS_BENCH_GPU_MEASURED_RUNNER_H_
#define FERMATA_TOOLS_BENCH_GPU_MEASURED_RUNNER_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/core/model_runner.h"

namespace fermata {

// One step as its runner saw it.
struct MeasuredStep {
  absl::Time begin;
  absl::Time end;
  int32_t rows = 0;
  int32_t slices = 0;
  int64_t context_tokens = 0;  // of all slices together

  bool decodes_only() const { return rows == slices; }
};

// One call that copied KV.
struct MeasuredCopy {
  absl::Time begin;
  absl::Time end;
  bool to_host = false;
};

// What is kept between engines: the runner itself, and the records.
class RunnerRecords {
 public:
  explicit RunnerRecords(std::unique_ptr<ModelRunner> runner) : runner_(std::move(runner)) {}

  ModelRunner& runner() { return *runner_; }

  void Add(const MeasuredStep& step) {
    const std::lock_guard<std::mutex> lock(mutex_);
    steps_.push_back(step);
  }
  void Add(const MeasuredCopy& copy) {
    const std::lock_guard<std::mutex> lock(mutex_);
    copies_.push_back(copy);
  }

  // What came since the last call.
  std::vector<MeasuredStep> TakeSteps() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(steps_, {});
  }
  std::vector<MeasuredCopy> TakeCopies() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(copies_, {});
  }

 private:
  const std::unique_ptr<ModelRunner> runner_;
  std::mutex mutex_;
  std::vector<MeasuredStep> steps_;
  std::vector<MeasuredCopy> copies_;
};

// For one engine. `records` must outlive it.
class MeasuredRunner : public ModelRunner {
 public:
  explicit MeasuredRunner(RunnerRecords& records) : records_(records) {}

  absl::Status Run(const Batch& batch, StepOutput* output) override {
    MeasuredStep step = {.begin = absl::Now(), .end = {}, .slices = static_cast<int32_t>(batch.slices.size())};
    const absl::Status status = records_.runner().Run(batch, output);
    step.end = absl::Now();
    for (const BatchSlice& slice : batch.slices) {
      step.rows += slice.token_count;
      step.context_tokens += slice.first_position + slice.token_count;
    }
    records_.Add(step);
    return status;
  }

  bool CallsLaunched() const override { return records_.runner().CallsLaunched(); }
  int64_t kv_block_bytes() const override { return records_.runner().kv_block_bytes(); }
  absl::StatusOr<std::shared_ptr<std::byte>> AllocateHostKv(int64_t bytes) override {
    return records_.runner().AllocateHostKv(bytes);
  }
  absl::Status CopyKvToHost(absl::Span<const KvCopy> copies) override {
    const absl::Time begin = absl::Now();
    const absl::Status status = records_.runner().CopyKvToHost(copies);
    records_.Add(MeasuredCopy{begin, absl::Now(), /*to_host=*/true});
    return status;
  }
  absl::Status CopyKvFromHost(absl::Span<const KvCopy> copies) override {
    const absl::Time begin = absl::Now();
    const absl::Status status = records_.runner().CopyKvFromHost(copies);
    records_.Add(MeasuredCopy{begin, absl::Now(), /*to_host=*/false});
    return status;
  }

 private:
  RunnerRecords& records_;
};

}  // namespace fermata

#endif  // FERMATA_TOOLS_BENCH_GPU_MEASURED_RUNNER_H_
