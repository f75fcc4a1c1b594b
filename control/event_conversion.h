// From what happened to the messages of Watch.

#ifndef FERMATA_CONTROL_EVENT_CONVERSION_H_
#define FERMATA_CONTROL_EVENT_CONVERSION_H_

#include <string>

#include "engine/runtime/event_log.h"
#include "proto/fermata/v1/control_service.pb.h"

namespace fermata {

// What a watcher wants to see. Empty: all.
struct WatchFilter {
  std::string tenant;
  std::string traffic_class;

  bool Matches(const std::string& other_tenant, const std::string& other_class) const {
    return (tenant.empty() || tenant == other_tenant) && (traffic_class.empty() || traffic_class == other_class);
  }
};

// Adds the events that match; all but the events and previous_revision is set in any case. False: none matches.
bool ToProto(const WatchedBatch& batch, const WatchFilter& filter, v1::EventBatch* proto);

}  // namespace fermata

#endif  // FERMATA_CONTROL_EVENT_CONVERSION_H_
