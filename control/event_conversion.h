// From what happened to the messages of Watch.

#ifndef FERMATA_CONTROL_EVENT_CONVERSION_H_
#define FERMATA_CONTROL_EVENT_CONVERSION_H_

#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
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

// Makes messages of batches: of each one, or of several in a row whose progress is merged. One thread at a time.
class BatchMerger {
 public:
  explicit BatchMerger(WatchFilter filter) : filter_(std::move(filter)) {}

  // What a batch brought for this watcher.
  enum class Added {
    kNothing,   // nothing matches: it is no part of the message
    kProgress,  // nothing but progress, which may wait for that of later steps
    kChange,    // something that is to be told at once
  };

  // Adds the events that match to the message. Progress is added to that of the same generation, up to the last other
  // event: so whatever is held after the message is what its last event about it says.
  Added Add(const WatchedBatch& batch);

  const WatchFilter& filter() const { return filter_; }

  bool empty() const { return message_.events().empty(); }

  // Moves what has been added since the last call to `proto`, all but previous_revision. REQUIRES: not empty().
  void Take(v1::EventBatch* proto);

 private:
  const WatchFilter filter_;
  v1::EventBatch message_;
  absl::Duration step_duration_;
  // Index in message_ of each generation's progress that more can be added to. Its identity lives as long as its
  // generation, whose end is an event that clears this.
  absl::flat_hash_map<const WatchedIdentity*, int> progress_;
};

}  // namespace fermata

#endif  // FERMATA_CONTROL_EVENT_CONVERSION_H_
