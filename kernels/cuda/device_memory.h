// Memory of the device, and host memory that it can reach at full speed: owned, and freed with their owner.

#ifndef FERMATA_KERNELS_CUDA_DEVICE_MEMORY_H_
#define FERMATA_KERNELS_CUDA_DEVICE_MEMORY_H_

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace fermata::kernels::cuda {

// OK for 0; otherwise what the runtime says of this cudaError_t: RESOURCE_EXHAUSTED if there is no memory, else
// INTERNAL, beginning with `what`.
absl::Status CudaStatus(int error, absl::string_view what);

// Of device memory; 0 if the device does not say.
int64_t FreeDeviceBytes();
int64_t TotalDeviceBytes();

enum class MemoryKind { kDevice, kPinnedHost };

// Owns its bytes; empty until moved to. Aligned to at least 256 bytes.
class CudaMemory {
 public:
  CudaMemory() = default;
  ~CudaMemory();
  CudaMemory(CudaMemory&& other) noexcept { *this = std::move(other); }
  CudaMemory& operator=(CudaMemory&& other) noexcept;

  // RESOURCE_EXHAUSTED, with what was asked for and what is free. Contents are undefined.
  static absl::StatusOr<CudaMemory> Allocate(MemoryKind kind, int64_t bytes);

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  MemoryKind kind_ = MemoryKind::kDevice;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace fermata::kernels::cuda

#endif  // FERMATA_KERNELS_CUDA_DEVICE_MEMORY_H_
