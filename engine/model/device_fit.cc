#include "engine/model/device_fit.h"

#include "absl/strings/str_cat.h"

namespace fermata {

absl::Status CheckDeviceMemory(const DeviceMemory& memory, absl::string_view path) {
  if (memory.free_bytes < 0) return absl::OkStatus();
  const int64_t needed = memory.weight_bytes + memory.kv_bytes;
  const std::string need =
      absl::StrCat(path, ": the weights need ", memory.weight_bytes, " bytes of the device's memory",
                   memory.kv_bytes > 0 ? absl::StrCat(", and --kv_bytes ", memory.kv_bytes) : "", ", of which ",
                   memory.free_bytes, " of ", memory.total_bytes, " are free");
  if (needed > memory.free_bytes) return absl::ResourceExhaustedError(need);
  if (memory.kv_bytes > 0) return absl::OkStatus();
  const int64_t kept_free =
      memory.total_bytes - static_cast<int64_t>(memory.fraction * static_cast<double>(memory.total_bytes));
  if (needed < memory.free_bytes - kept_free) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(need, "; --gpu_memory_fraction=", memory.fraction, " keeps ",
                                                   kept_free, " of those free, so that no KV cache fits"));
}

}  // namespace fermata
