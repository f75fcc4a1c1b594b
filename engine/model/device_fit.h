// Whether a model has room in a device's memory.

#ifndef FERMATA_ENGINE_MODEL_DEVICE_FIT_H_
#define FERMATA_ENGINE_MODEL_DEVICE_FIT_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace fermata {

// All in bytes.
struct DeviceMemory {
  int64_t weight_bytes = 0;
  int64_t kv_bytes = 0;     // of the KV pool, where it is not to be what is left; else 0
  int64_t free_bytes = -1;  // below 0: there is no such memory
  int64_t total_bytes = -1;
  double fraction = 1;  // of all, that may be used: for a pool that is to be what is left
};

// RESOURCE_EXHAUSTED, beginning with `path` and telling the numbers, if it has none.
absl::Status CheckDeviceMemory(const DeviceMemory& memory, absl::string_view path);

}  // namespace fermata

#endif  // FERMATA_ENGINE_MODEL_DEVICE_FIT_H_
