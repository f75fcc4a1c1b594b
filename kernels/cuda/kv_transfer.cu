#include <cuda_runtime.h>

#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/kv_transfer.h"

namespace fermata::kernels::cuda {

absl::StatusOr<std::unique_ptr<KvTransfer>> KvTransfer::Create() {
  std::unique_ptr<KvTransfer> transfer(new KvTransfer());
  for (CUstream_st** stream : {&transfer->to_host_, &transfer->from_host_}) {
    const cudaError_t error = cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking);
    if (error != cudaSuccess) return CudaStatus(error, "a stream for KV");
  }
  return transfer;
}

KvTransfer::~KvTransfer() {
  for (CUstream_st* stream : {to_host_, from_host_}) {
    if (stream != nullptr) cudaStreamDestroy(stream);
  }
}

absl::Status KvTransfer::ToHost(const std::byte* pool, int64_t block_bytes,
                                absl::Span<const Backend::KvBlockCopy> copies) {
  cudaError_t error = cudaSuccess;
  for (const Backend::KvBlockCopy& copy : copies) {
    if (error != cudaSuccess) break;
    error = cudaMemcpyAsync(copy.host, pool + copy.block * block_bytes, static_cast<size_t>(block_bytes),
                            cudaMemcpyDeviceToHost, to_host_);
  }
  const cudaError_t done = cudaStreamSynchronize(to_host_);
  return CudaStatus(error != cudaSuccess ? error : done, "KV to the host");
}

absl::Status KvTransfer::FromHost(absl::Span<const Backend::KvBlockCopy> copies, int64_t block_bytes, std::byte* pool) {
  cudaError_t error = cudaSuccess;
  for (const Backend::KvBlockCopy& copy : copies) {
    if (error != cudaSuccess) break;
    error = cudaMemcpyAsync(pool + copy.block * block_bytes, copy.host, static_cast<size_t>(block_bytes),
                            cudaMemcpyHostToDevice, from_host_);
  }
  const cudaError_t done = cudaStreamSynchronize(from_host_);
  return CudaStatus(error != cudaSuccess ? error : done, "KV from the host");
}

}  // namespace fermata::kernels::cuda
