#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/staged_upload.h"

namespace fermata::kernels::cuda {
namespace {

constexpr int64_t kAlignment = 256;
constexpr int64_t kThreads = 256;
constexpr int64_t kMaxBlocks = 64;

// By the processors: the copy engines may be busy for long with KV.
__global__ void FetchKernel(const uint4* from, int64_t pieces, uint4* to) {
  for (int64_t i = blockIdx.x * kThreads + threadIdx.x; i < pieces; i += gridDim.x * kThreads) to[i] = from[i];
}

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
  const int64_t pieces = (bytes + static_cast<int64_t>(sizeof(uint4)) - 1) / static_cast<int64_t>(sizeof(uint4));
  const int64_t blocks = std::min((pieces + kThreads - 1) / kThreads, kMaxBlocks);
  if (blocks == 0) return static_cast<const void*>(to);
  FetchKernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream_>>>(reinterpret_cast<const uint4*>(from), pieces,
                                                                       reinterpret_cast<uint4*>(to));
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) return CudaStatus(error, "copy to the device");
  return static_cast<const void*>(to);
}

}  // namespace fermata::kernels::cuda
