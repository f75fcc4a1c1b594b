#include <cuda_runtime.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/staged_upload.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int64_t kAlignment = 256;

}  // namespace

StagedUpload::StagedUpload(CudaMemory host, CudaMemory device, CUstream_st* stream)
    : host_(std::move(host)), device_(std::move(device)), stream_(stream) {}

absl::StatusOr<StagedUpload> StagedUpload::Create(int64_t bytes, CUstream_st* stream) {
  absl::StatusOr<CudaMemory> host = CudaMemory::Allocate(MemoryKind::kPinnedHost, bytes);
  if (!host.ok()) return host.status();
  absl::StatusOr<CudaMemory> device = CudaMemory::Allocate(MemoryKind::kDevice, bytes);
  if (!device.ok()) return device.status();
  return StagedUpload(*std::move(host), *std::move(device), stream);
}

absl::StatusOr<const void*> StagedUpload::Put(const void* data, int64_t bytes) {
  if (used_ + bytes > host_.bytes()) {
    return absl::ResourceExhaustedError(absl::StrCat("a step's tables need more than ", host_.bytes(), " bytes"));
  }
  uint8_t* from = host_.as<uint8_t>() + used_;
  uint8_t* to = device_.as<uint8_t>() + used_;
  used_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  std::memcpy(from, data, static_cast<size_t>(bytes));
  const cudaError_t error = cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream_);
  if (error != cudaSuccess) return CudaStatus(error, "copy to the device");
  return static_cast<const void*>(to);
}

}  // namespace fermata::kernels::cuda
