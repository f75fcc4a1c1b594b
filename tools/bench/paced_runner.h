// A model that only takes time, and what the engine needs between two runs of it. For control_bench.

#ifndef FERMATA_TOOLS_BENCH_PACED_RUNNER_H_
#define FERMATA_TOOLS_BENCH_PACED_RUNNER_H_

#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/core/model_runner.h"

namespace fermata {

// Takes its time, to the microsecond, and samples the same token again and again.
class PacedRunner : public ModelRunner {
 public:
  // How long the engine took from the end of each run of the model to the begin of the next. Any thread.
  class Gaps {
   public:
    void Add(absl::Duration gap) {
      const std::lock_guard<std::mutex> lock(mutex_);
      us_.push_back(absl::ToDoubleMicroseconds(gap));
    }

    // What has been added since the last call.
    std::vector<double> Take() {
      const std::lock_guard<std::mutex> lock(mutex_);
      return std::exchange(us_, {});
    }

   private:
    std::mutex mutex_;
    std::vector<double> us_;
  };

  // `gaps` must outlive this.
  PacedRunner(absl::Duration step, Gaps& gaps) : step_(step), gaps_(gaps) {}

  absl::Status Run(const Batch& batch, StepOutput* output) override {
    const absl::Time begin = absl::Now();
    if (end_ != absl::InfinitePast()) gaps_.Add(begin - end_);
    if (batch.launched) batch.launched();
    output->sampled.clear();
    for (size_t i = 0; i < batch.slices.size(); ++i) {
      if (batch.slices[i].sample) output->sampled.emplace_back().slice = static_cast<int32_t>(i);
    }
    // A sleep ends late, by up to a tenth of a millisecond here, which is not the engine's: the last bit is waited out.
    absl::SleepFor(begin + step_ - kLateness - absl::Now());
    do end_ = absl::Now();
    while (end_ < begin + step_);
    return absl::OkStatus();
  }

  // It takes time as a device does: the thread only waits.
  bool CallsLaunched() const override { return true; }

 private:
  static constexpr absl::Duration kLateness = absl::Microseconds(200);

  const absl::Duration step_;
  Gaps& gaps_;
  absl::Time end_ = absl::InfinitePast();
};

}  // namespace fermata

#endif  // FERMATA_TOOLS_BENCH_PACED_RUNNER_H_
