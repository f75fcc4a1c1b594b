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
    // The machine does something else at the step of that number.
    if (steps == busy_at) clock_.now += busy;
    ++steps;
    return status;
  }

  absl::Status status;
  int steps = 0;
  int busy_at = -1;
  absl::Duration busy = absl::ZeroDuration();

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

// One timing alone decided once, and steps of 32 tokens were seen.
TEST(StepCalibrationTest, ABusyMomentMakesNoTinySteps) {
  for (int busy_at = 0; busy_at < 10; ++busy_at) {
    ManualClock clock;
    TimedRunner runner(clock, absl::Microseconds(500));
    runner.busy_at = busy_at;
    runner.busy = absl::Milliseconds(90);
    EXPECT_EQ(*CalibrateStepTokens(runner, clock, kTarget, 16, 1000, 2048), 192) << "busy at step " << busy_at;
  }
}

TEST(StepCalibrationTest, StartIsBounded) {
  // What is slow is not timed again and again.
  ManualClock slow_clock;
  TimedRunner slow(slow_clock, absl::Milliseconds(25));
  EXPECT_EQ(*CalibrateStepTokens(slow, slow_clock, kTarget, 16, 1000, 2048), 16);
  EXPECT_EQ(slow.steps, 1) << "400 ms each";
  for (const absl::Duration per_token : {absl::Nanoseconds(1), absl::Microseconds(100), absl::Microseconds(1500)}) {
    ManualClock clock;
    const absl::Time begin = clock.Now();
    TimedRunner runner(clock, per_token);
    ASSERT_TRUE(CalibrateStepTokens(runner, clock, kTarget, 16, 1000, 2048).ok());
    EXPECT_LE(clock.Now() - begin, 3 * kTarget + kTarget / 2) << per_token;
    EXPECT_LE(runner.steps, 20) << per_token;
  }
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
