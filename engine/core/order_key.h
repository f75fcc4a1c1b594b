// The place of a generation in the one order that slots, blocks and tokens go by.

#ifndef FERMATA_ENGINE_CORE_ORDER_KEY_H_
#define FERMATA_ENGINE_CORE_ORDER_KEY_H_

#include <cstdint>

#include "engine/core/ids.h"

namespace fermata {

// Smaller is served sooner. A generation keeps its key, so whoever was held or displaced comes back at its own place.
struct OrderKey {
  int32_t priority = 0;  // lower is more urgent; 0 for all under SchedulePolicy::kFcfs
  GenerationKey arrival{};

  friend bool operator==(const OrderKey& a, const OrderKey& b) {
    return a.priority == b.priority && a.arrival == b.arrival;
  }
  friend bool operator<(const OrderKey& a, const OrderKey& b) {
    return a.priority != b.priority ? a.priority < b.priority : a.arrival < b.arrival;
  }
};

}  // namespace fermata

#endif  // FERMATA_ENGINE_CORE_ORDER_KEY_H_
