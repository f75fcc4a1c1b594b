// Goal: the metrics say what happened, under the names that dashboards are built on.
// Method: reports by hand, and the text that Prometheus would read.

#include "engine/serving/metrics.h"

#include <memory>
#include <string>

#include "engine/serving/engine_collector.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"

namespace fermata {
namespace {

using State = GenerationState;
using testing::HasSubstr;

constexpr GenerationKey kKey{7};

class MetricsTest : public testing::Test {
 protected:
  void After(absl::Duration duration, Event event, absl::Duration step = absl::ZeroDuration()) {
    now_ += duration;
    Report report;
    report.events.push_back(std::move(event));
    metrics_.OnReport(report, now_, step);
  }

  static StateChanged Change(State from, State to) { return {.key = kKey, .from = from, .to = to}; }

  std::string Text() { return prometheus::TextSerializer().Serialize(metrics_.registry()->Collect()); }

  Metrics metrics_;
  absl::Time now_ = absl::FromUnixSeconds(1000);
};

TEST_F(MetricsTest, ALifeLeavesItsTimes) {
  After(absl::ZeroDuration(), Change(State::kNone, State::kQueued));
  After(absl::Seconds(2), Change(State::kQueued, State::kRunning));
  After(absl::Seconds(1), TokenSampled{.key = kKey}, absl::Milliseconds(250));
  After(absl::Milliseconds(500), TokenSampled{.key = kKey, .offset = 1}, absl::Milliseconds(250));
  After(absl::ZeroDuration(), Change(State::kRunning, State::kPaused));
  After(absl::Seconds(60), Change(State::kPaused, State::kPreempted));
  After(absl::Seconds(4), Change(State::kPreempted, State::kRunning));
  StateChanged finish = Change(State::kRunning, State::kFinished);
  GenerationInfo info;
  info.finish_reason = FinishReason::kLength;
  finish.info = std::make_shared<const GenerationInfo>(info);
  After(absl::Seconds(1), finish);
  const std::string text = Text();
  for (const char* line :
       {"fermata_time_to_first_token_seconds_sum 3", "fermata_time_between_tokens_seconds_sum 0.5",
        "fermata_queued_seconds_sum 6", "fermata_queued_seconds_count 2", "fermata_paused_seconds_sum 60",
        "fermata_step_seconds_count 2", "fermata_step_seconds_sum 0.5", "fermata_finished_total{reason=\"LENGTH\"} 1",
        "fermata_finished_total{reason=\"STOP\"} 0"}) {
    EXPECT_THAT(text, HasSubstr(std::string(line) + "\n"));
  }
}

TEST(EngineCollectorTest, PausedOnesAreNeitherQueuedNorRunning) {
  EngineInfo info;
  info.count_by_state[static_cast<int>(State::kPaused)] = 3;
  info.count_by_state[static_cast<int>(State::kRunning)] = 1;
  info.device.block_count = 100;
  info.device.paused_count = 12;
  info.host.block_count = 7;
  info.host.paused_count = 3;
  info.kv_move_total[1][2] = 5;
  info.device.free_count = 88;
  info.output_token_total = 41;
  const std::string text = prometheus::TextSerializer().Serialize(ToMetrics(info));
  for (const char* line :
       {"fermata_generations{state=\"paused\"} 3", "fermata_generations{state=\"running\"} 1",
        "fermata_generations{state=\"queued\"} 0", "fermata_kv_blocks{tier=\"device\",use=\"paused\"} 12",
        "fermata_kv_blocks{tier=\"device\",use=\"free\"} 88", "fermata_kv_blocks{tier=\"host\",use=\"paused\"} 3",
        "fermata_kv_moves_total{from=\"device\",to=\"host\"} 5", "fermata_output_tokens_total 41"}) {
    EXPECT_THAT(text, HasSubstr(std::string(line) + "\n"));
  }
}

}  // namespace
}  // namespace fermata
