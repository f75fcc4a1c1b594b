// How long things take, for Prometheus.

#ifndef FERMATA_ENGINE_SERVING_METRICS_H_
#define FERMATA_ENGINE_SERVING_METRICS_H_

#include <cstdint>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "engine/core/report.h"
#include "engine/runtime/report_observer.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"

namespace fermata {

// Made from the engine's events alone, so the engine does no work for it. What can be asked of the engine at any time
// (gauges, totals) is EngineCollector's.
class Metrics : public ReportObserver {
 public:
  Metrics();

  void OnReport(const Report& report, absl::Time now, absl::Duration step_duration) override;

  // Safe to collect from while reports come.
  std::shared_ptr<prometheus::Collectable> registry() const { return registry_; }

 private:
  // What is remembered of a live generation.
  struct Times {
    absl::Time create_time;
    absl::Time state_time;                         // when its present state began
    absl::Time token_time = absl::InfinitePast();  // of its last token
  };

  void On(const StateChanged& change, absl::Time now);
  void On(const TokenSampled& token, absl::Time now);

  const std::shared_ptr<prometheus::Registry> registry_ = std::make_shared<prometheus::Registry>();
  prometheus::Family<prometheus::Counter>& finished_;
  prometheus::Histogram& step_;
  prometheus::Histogram& first_token_;
  prometheus::Histogram& between_tokens_;
  prometheus::Histogram& queued_;
  prometheus::Histogram& paused_;
  absl::flat_hash_map<GenerationKey, Times> live_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_SERVING_METRICS_H_
