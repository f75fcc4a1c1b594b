// Who wants to see what the engine reports.

#ifndef FERMATA_ENGINE_RUNTIME_REPORT_OBSERVER_H_
#define FERMATA_ENGINE_RUNTIME_REPORT_OBSERVER_H_

#include "absl/time/time.h"
#include "engine/core/report.h"

namespace fermata {

class ReportObserver {
 public:
  virtual ~ReportObserver() = default;

  // Called for every report, in order, before it is published; on the publisher's thread, which must not be held up.
  // `step_duration` is zero for a boundary.
  virtual void OnReport(const Report& report, absl::Time now, absl::Duration step_duration) = 0;
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_RUNTIME_REPORT_OBSERVER_H_
