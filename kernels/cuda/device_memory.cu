#include <cuda_runtime.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/device_memory.h"

namespace fermata::kernels::cuda {

absl::Status CudaStatus(int error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message = absl::StrCat(what, ": ", cudaGetErrorString(static_cast<cudaError_t>(error)));
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(message) : absl::InternalError(message);
}

int64_t FreeDeviceBytes() {
  size_t free = 0;
  size_t total = 0;
  return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(free) : 0;
}

int64_t TotalDeviceBytes() {
  size_t free = 0;
  size_t total = 0;
  return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(total) : 0;
}

CudaMemory::~CudaMemory() {
  if (data_ == nullptr) return;
  // An error here is one of earlier work, which Synchronize() has told or nobody waits for.
  kind_ == MemoryKind::kDevice ? cudaFree(data_) : cudaFreeHost(data_);
}

CudaMemory& CudaMemory::operator=(CudaMemory&& other) noexcept {
  std::swap(kind_, other.kind_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

absl::StatusOr<CudaMemory> CudaMemory::Allocate(MemoryKind kind, int64_t bytes) {
  CudaMemory memory;
  memory.kind_ = kind;
  memory.bytes_ = std::max<int64_t>(bytes, 1);
  const size_t size = static_cast<size_t>(memory.bytes_);
  const cudaError_t error =
      kind == MemoryKind::kDevice ? cudaMalloc(&memory.data_, size) : cudaMallocHost(&memory.data_, size);
  if (error == cudaSuccess) return absl::StatusOr<CudaMemory>(std::move(memory));
  memory.data_ = nullptr;
  if (kind == MemoryKind::kPinnedHost) return CudaStatus(error, absl::StrCat(bytes, " bytes of pinned host memory"));
  cudaGetLastError();  // it is told here: later launches are not to find it
  return CudaStatus(error, absl::StrCat(bytes, " bytes on the device, which has ", FreeDeviceBytes(), " free"));
}

}  // namespace fermata::kernels::cuda
