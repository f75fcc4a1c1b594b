// The engine's counters, for Prometheus.

#ifndef FERMATA_ENGINE_SERVING_ENGINE_COLLECTOR_H_
#define FERMATA_ENGINE_SERVING_ENGINE_COLLECTOR_H_

#include <vector>

#include "engine/core/commands.h"
#include "engine/runtime/engine_runtime.h"
#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"

namespace fermata {

// What `info` says, as Prometheus wants it. A paused generation has a gauge of its own and counts in KV use, but
// neither in queued nor in running.
std::vector<prometheus::MetricFamily> ToMetrics(const EngineInfo& info);

// Asks the engine each time it is collected from, and waits for the answer: at most until the end of a step, and never
// longer than a second (then there are no metrics). Any thread.
class EngineCollector : public prometheus::Collectable {
 public:
  // Borrows `runtime`.
  explicit EngineCollector(EngineRuntime& runtime) : runtime_(runtime) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  EngineRuntime& runtime_;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_SERVING_ENGINE_COLLECTOR_H_
