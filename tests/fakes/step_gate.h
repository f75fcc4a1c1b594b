// Holds a model between two steps until the test says go: makes threads deterministic.

#ifndef FERMATA_TESTS_FAKES_STEP_GATE_H_
#define FERMATA_TESTS_FAKES_STEP_GATE_H_

#include <condition_variable>
#include <cstdint>
#include <limits>
#include <mutex>

namespace fermata {

// Given to FakeModelRunnerOptions::before_run by calling Pass() there. All methods may be called from any thread.
class StepGate {
 public:
  // Waits for its turn. The runner's thread.
  void Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    ++arrived_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return allowed_ > 0; });
    if (allowed_ != kOpen) --allowed_;
    --arrived_;
    changed_.notify_all();
  }

  // Lets `steps` more steps pass.
  void Allow(int64_t steps) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (allowed_ != kOpen) allowed_ += steps;
    changed_.notify_all();
  }

  // Lets all steps pass from now on.
  void Open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    allowed_ = kOpen;
    changed_.notify_all();
  }

  // Waits until every step that was allowed has passed and the next one stands at the gate.
  void AwaitArrival() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return arrived_ > 0 && allowed_ == 0; });
  }

 private:
  static constexpr int64_t kOpen = std::numeric_limits<int64_t>::max();

  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t allowed_ = 0;
  int64_t arrived_ = 0;
};

}  // namespace fermata

#endif  // FERMATA_TESTS_FAKES_STEP_GATE_H_
