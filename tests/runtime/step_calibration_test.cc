// Goal: the size of a step fits what the machine can do in the time given, and the limits. Method: a runner whose work
// takes time on a clock of its own.

#include "engine/runtime/step_calibration.h"

#include "gtest/gtest.h"

namespace fermata {
namespace {

class ManualClock : public Clock {
 public:
  absl::Time Now() const override { return now; }
  absl::Time now = absl::FromUnixSeconds(1000);
};

// Each token takes as long as the test says; the blocks must cover them.
class TimedRunner : public ModelRunner {
 public:
  TimedRunner(ManualClock& clock, absl::Duration per_token) : clock_(clock), per_token_(per_token) {}

  absl::Status Run(const Batch& batch, StepOutput* output) override {
    const BatchSlice& slice = batch.slices[0];
    EXPECT_GE(static_cast<int64_t>(slice.blocks.size()) * 16, slice.token_count);
    clock_.now += per_token_ * slice.token_count;
    return status;
  }

  absl::Status status;

 private:
  ManualClock& clock_;
  const absl::Duration per_token_;
};

constexpr absl::Duration kTarget = absl::Milliseconds(100);

TEST(StepCalibrationTest, StepFillsTheTarget) {
  ManualClock clock;
  TimedRunner runner(clock, absl::Microseconds(500));
  EXPECT_EQ(*CalibrateStepTokens(runner, clock, kTarget, 16, 1000, 2048), 192) << "200, down to a multiple of 16";
}

TEST(StepCalibrationTest, SlowMachineGetsTheSmallestStep) {
  ManualClock clock;
  TimedRunner runner(clock, absl::Seconds(1));
  EXPECT_EQ(*CalibrateStepTokens(runner, clock, kTarget, 16, 1000, 2048), 16);
}

TEST(StepCalibrationTest, FastMachineGetsTheLargest) {
  ManualClock clock;
  TimedRunner runner(clock, absl::Nanoseconds(1));
  EXPECT_EQ(*CalibrateStepTokens(runner, clock, kTarget, 16, 1000, 2048), 2048);
}

TEST(StepCalibrationTest, TinyPoolIsNotExceededWhileMeasuring) {
  ManualClock clock;
  TimedRunner runner(clock, absl::Microseconds(100));
  EXPECT_EQ(*CalibrateStepTokens(runner, clock, kTarget, 16, 2, 2048), 992);
}

TEST(StepCalibrationTest, BrokenRunnerIsReported) {
  ManualClock clock;
  TimedRunner runner(clock, absl::Microseconds(100));
  runner.status = absl::InternalError("no power");
  EXPECT_EQ(CalibrateStepTokens(runner, clock, kTarget, 16, 1000, 2048).status(), runner.status);
}

}  // namespace
}  // namespace fermata
