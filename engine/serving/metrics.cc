#include "engine/serving/metrics.h"

#include <string>
#include <variant>

namespace fermata {
namespace {

using State = GenerationState;
using Buckets = prometheus::Histogram::BucketBoundaries;

// Seconds.
const Buckets kShort = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5};
const Buckets kLong = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800};

prometheus::Histogram& AddHistogram(prometheus::Registry& registry, const std::string& name, const std::string& help,
                                    const Buckets& buckets) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
}

}  // namespace

Metrics::Metrics()
    : finished_(prometheus::BuildCounter()
                    .Name("fermata_finished_total")
                    .Help("Generations that have finished, by reason.")
                    .Register(*registry_)),
      step_(AddHistogram(*registry_, "fermata_step_seconds", "How long a step takes.", kShort)),
      first_token_(AddHistogram(*registry_, "fermata_time_to_first_token_seconds",
                                "From the creation of a generation to its first output token.", kLong)),
      between_tokens_(AddHistogram(*registry_, "fermata_time_between_tokens_seconds",
                                   "From one output token of a generation to its next, pauses included.", kLong)),
      queued_(AddHistogram(*registry_, "fermata_queued_seconds",
                           "How long a generation waits each time, QUEUED or PREEMPTED, before it runs.", kLong)),
      paused_(AddHistogram(*registry_, "fermata_paused_seconds", "How long a pause lasts.", kLong)) {
  for (const FinishReason reason : {FinishReason::kStop, FinishReason::kLength, FinishReason::kAborted,
                                    FinishReason::kDeadline, FinishReason::kError}) {
    finished_.Add({{"reason", std::string(Name(reason).data(), Name(reason).size())}});
  }
}

void Metrics::OnReport(const Report& report, absl::Time now, absl::Duration step_duration) {
  if (step_duration > absl::ZeroDuration()) step_.Observe(absl::ToDoubleSeconds(step_duration));
  for (const Event& event : report.events) {
    if (const auto* change = std::get_if<StateChanged>(&event)) On(*change, now);
    if (const auto* token = std::get_if<TokenSampled>(&event)) On(*token, now);
  }
}

void Metrics::On(const StateChanged& change, absl::Time now) {
  if (change.from == State::kNone) live_[change.key] = {now, now};
  const auto it = live_.find(change.key);
  if (it == live_.end()) return;
  const double seconds = absl::ToDoubleSeconds(now - it->second.state_time);
  if (change.to == State::kRunning) queued_.Observe(seconds);
  if (change.from == State::kPaused) paused_.Observe(seconds);
  it->second.state_time = now;
  if (change.to != State::kFinished) return;
  if (change.info != nullptr) {
    const absl::string_view reason = Name(change.info->finish_reason);
    finished_.Add({{"reason", std::string(reason.data(), reason.size())}}).Increment();
  }
  live_.erase(it);
}

void Metrics::On(const TokenSampled& token, absl::Time now) {
  const auto it = live_.find(token.key);
  if (it == live_.end()) return;
  Times& times = it->second;
  if (times.token_time == absl::InfinitePast()) {
    first_token_.Observe(absl::ToDoubleSeconds(now - times.create_time));
  } else {
    between_tokens_.Observe(absl::ToDoubleSeconds(now - times.token_time));
  }
  times.token_time = now;
}

}  // namespace fermata
