#include "engine/runtime/engine_stats.h"

namespace fermata {
namespace {

// Steps that end within one slice are one entry: the window has a bounded number of them.
constexpr absl::Duration kSlice = absl::Milliseconds(100);
constexpr double kWeightOfNew = 0.05;

}  // namespace

void EngineStats::AddStep(absl::Time now, absl::Duration duration, int64_t output_tokens) {
  const std::lock_guard<std::mutex> lock(mutex_);
  step_duration_ =
      step_duration_ == absl::ZeroDuration() ? duration : step_duration_ * (1 - kWeightOfNew) + duration * kWeightOfNew;
  if (tokens_.empty() || now - tokens_.back().first >= kSlice) {
    tokens_.emplace_back(now, output_tokens);
  } else {
    tokens_.back().second += output_tokens;
  }
  while (now - tokens_.front().first > kWindow) tokens_.pop_front();
}

EngineStats::Snapshot EngineStats::Get(absl::Time now) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  int64_t sum = 0;
  for (const auto& [time, count] : tokens_) {
    if (now - time <= kWindow) sum += count;
  }
  return {step_duration_, static_cast<double>(sum) / absl::ToDoubleSeconds(kWindow)};
}

}  // namespace fermata
